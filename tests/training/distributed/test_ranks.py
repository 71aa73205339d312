"""Test that two processes train as one does: the same losses and weights within 1e-6, in float64, with DDP and FSDP2.

Each process makes its own random draws during training, so two processes and one have different losses with a noisy
router. The same holds for the times and masks of masked diffusion. Here the blocks determine those, and everything else
must then be equal. With their own draws, two processes must still end with the same weights as each other, and repeat
bit-identically.
"""

import contextlib
import datetime
import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
import torch.multiprocessing
from tests.training.conftest import BASE, DENSE

from speciate.config.extends import merge
from speciate.config.run import RunSpec, canonical_json
from speciate.stages import train as verb
from speciate.training import prepare
from speciate.training.checkpoint import sharded
from speciate.training.checkpoint.state import State
from speciate.training.diffusion.fixed_uniforms import uniforms
from speciate.training.distributed import ranks as distributed
from speciate.training.distributed.ranks import Ranks
from speciate.training.objective import masked_diffusion
from speciate.training.prepare import initial_model

QUIET = {"router": {"noise_std": 0.0}}
BIAS = {"top_k": 2, "balance": {"kind": "bias", "rate": 0.01}, "z_weight": 0.0, **QUIET}
GLOBAL = {"balance": {"kind": "auxiliary", "scope": "global_batch", "weight": 1.0}, **QUIET}
NO_LOSS = {"balance": "none", "z_weight": 0.0, **QUIET}
GSA = {
    "kind": "gsa",
    "num_heads": 2,
    "indexer": {"kind": "kl", "heads": 2, "width": 8},
    "budget": {"kind": "fixed", "k": 4},
}
ROM = {"kind": "rom", "state": 4, "num_experts": 2, "router": {"kind": "learned"}, "balance": "auxiliary"}
DIFFUSION = merge(DENSE, {"model": {"causal": False}, "objective": {"kind": "masked_diffusion", "eval_draws": 4}})
ADAPTIVE = {"importance": {"kind": "learned", "width": 8}, "masking": "importance", "curriculum": "default"}
# name -> change of the small run, and the micro-batches that one process needs to match two processes
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "dense": (DENSE, 1),
    # ragged documents: one process has more predictions than the other
    "documents": (
        {
            "model": {"separate_documents": True, "block": {"ffn": NO_LOSS}},
            "training": {"grad_accumulation": 2, "ema": 0.9},
        },
        1,
    ),
    # further heads besides the blocks, with unequal numbers of targets
    "heads": (
        merge(DENSE, {"model": {"separate_documents": True}, "objective": {"kind": "multi_token", "heads": 3}}),
        1,
    ),
    # the load is counted over all processes; the selectors' losses are each process's own
    "bias": ({"model": {"block": {"ffn": BIAS}}, "training": {"activation_checkpointing": True}}, 1),
    "auxiliary": ({"model": {"block": {"ffn": QUIET}}, "telemetry": {"gradient_norms": True}}, 2),
    "gsa": (merge(DENSE, {"model": {"block": {"mixer": GSA}}}), 1),
    "rom": (merge(DENSE, {"model": {"block": {"mixer": ROM}}}), 2),
    # the predictor's threshold follows the logits of all processes
    "mod": (merge(DENSE, {"model": {"block": {"depth": {"kind": "mod", "capacity": 0.5, "hidden": 8}}}}), 1),
    "muon": (merge(DENSE, {"optimizer": {"kind": "muon", "lr": 0.01, "iteration": "float32"}}), 1),
    "diffusion": (DIFFUSION, 1),
    # the estimator's loss is each process's own, over the masks that it has
    "adaptive": (merge(DIFFUSION, {"objective": ADAPTIVE}), 2),
    # the shares are those of all processes, so one process must have them in one micro-batch
    "global": ({"model": {"block": {"ffn": GLOBAL}}, "training": {"activation_checkpointing": True}}, 1),
}
PARALLEL = ("ddp", "fsdp")
ONLY_DDP = ("muon", "adaptive")
"""Cases that fsdp refuses."""
PAIRS = [(case, parallel) for parallel in PARALLEL for case in CASES if parallel == "ddp" or case not in ONLY_DDP]


def spec_of(case: str, processes: int, parallel: str = "ddp", **training: Any) -> RunSpec:
    change, micro_batches = CASES[case]
    settings = merge(merge(BASE, {"training": {"num_steps": 4}}), change)
    accumulation = settings["training"].get("grad_accumulation", 1) * (micro_batches if processes == 1 else 1)
    sizes = {"grad_accumulation": accumulation, "processes": processes, "parallel": parallel, **training}
    return RunSpec.model_validate(merge(settings, {"training": sizes}))


class StopAt:
    """Ask to stop after a number of steps."""

    def __init__(self, step: int) -> None:
        self.left, self.received = step - 1, signal.SIGTERM

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def trained(spec: RunSpec, mixture: pathlib.Path, folder: pathlib.Path, ranks: Ranks, stop: int = 10**9) -> bool:
    return verb.train(spec, mixture, folder, folder.parent / f"{folder.name}-kept", stop=StopAt(stop), ranks=ranks)


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def drawn_from_the_blocks() -> Iterator[None]:
    """Make diffusion's times and masks depend on the tokens alone."""

    def draw_noise(self: masked_diffusion.Objective, token_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 1 - uniforms(token_BT, 11)[:, 0], uniforms(token_BT, 12)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masked_diffusion.Objective, "draw_noise", draw_noise)
        yield


@contextlib.contextmanager
def seen(models: list[torch.nn.Module]) -> Iterator[None]:
    """Put the model that is trained inside the block into `models`."""

    def build(*given: Any) -> torch.nn.Module:
        models[:] = [original(*given)]
        return models[0]

    original = initial_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "initial_model", build)
        yield


def assert_the_same_everywhere(model: torch.nn.Module) -> None:
    """Check that every process has these weights and buffers, bit for bit."""
    for name, mine in model.state_dict().items():
        both = [torch.empty_like(mine) for _ in range(2)]
        dist.all_gather(both, mine)
        assert torch.equal(*both), name


def two(rank: int, home: pathlib.Path, mixture: pathlib.Path) -> None:
    """Do what each of two processes does; they meet in a file."""
    torch.set_num_threads(1)
    limit = datetime.timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=f"file://{home}/store", rank=rank, world_size=2, timeout=limit)
    with double_precision():
        for parallel in PARALLEL:
            ranks = Ranks(rank, 2, fsdp=parallel == "fsdp")
            models: list[torch.nn.Module] = []
            with drawn_from_the_blocks(), seen(models):
                for case in (case for case, with_ in PAIRS if with_ == parallel):
                    assert trained(spec_of(case, 2, parallel), mixture, home / f"{case}-{parallel}", ranks)
                    if parallel == "ddp":
                        assert_the_same_everywhere(models[0])
            # each process makes its own draws; only the second process is asked to stop
            for name, spec in own_draws(parallel).items():
                with seen(models):
                    assert trained(spec, mixture, home / f"{name}-whole-{parallel}", ranks)
                if parallel == "ddp":
                    assert_the_same_everywhere(models[0])
                parts = home / f"{name}-parts-{parallel}"
                assert not trained(spec, mixture, parts, ranks, stop=3 if rank else 10**9)
                assert trained(spec, mixture, parts, ranks)
            # one process will resume it
            assert not trained(spec_of("documents", 2, parallel), mixture, home / f"left-{parallel}", ranks, stop=3)
    dist.destroy_process_group()


def noisy(parallel: str) -> RunSpec:
    """Make a run whose router has noise until its last step, drawn by each process for itself."""
    noise = {"model": {"block": {"ffn": {"router": {"noise_std": 0.5, "noise_until": 1.0}}}}}
    settings = {"training": {"num_steps": 6, "processes": 2, "parallel": parallel}, **noise}
    return RunSpec.model_validate(merge(BASE, settings))


def own_draws(parallel: str) -> dict[str, RunSpec]:
    """Make runs in which each process draws its own part."""
    longer = {"training": {"num_steps": 6}}
    diffusion = "adaptive" if parallel == "ddp" else "diffusion"
    masked = RunSpec.model_validate(merge(json.loads(canonical_json(spec_of(diffusion, 2, parallel))), longer))
    return {"noisy": noisy(parallel), "masked": masked}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, mixture: pathlib.Path) -> pathlib.Path:
    """Return the folder that two processes wrote."""
    folder = tmp_path_factory.mktemp("two")
    # import torch and this file once for both
    multiprocessing.set_forkserver_preload([__name__, "torch.distributed.fsdp", "torch.distributed.checkpoint"])
    torch.multiprocessing.start_processes(two, (folder, mixture), nprocs=2, start_method="forkserver")
    return folder


def rows(folder: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_alike(one: pathlib.Path, other: pathlib.Path) -> None:
    """Check that losses, norms, validation and weights agree within 1e-6."""
    ours, theirs = rows(one), rows(other)
    assert len(ours) == len(theirs)
    for mine, yours in zip(ours, theirs, strict=True):
        assert mine.keys() == yours.keys()
        for key, value in mine.items():
            if key == "measured":  # [path, name, coordinate, mean] of each metric
                assert [row[:3] for row in value] == [row[:3] for row in yours[key]]
                value, yours[key] = ([row[3] for row in rows_of] for rows_of in (value, yours[key]))
            assert value == pytest.approx(yours[key], rel=0, abs=1e-6), (key, mine, yours)
    names = {file.name for file in one.glob("*.safetensors")} - {"telemetry.safetensors"}
    assert names == {file.name for file in other.glob("*.safetensors")} - {"telemetry.safetensors"}
    for name in names:
        weights = safetensors.torch.load_file(other / name)
        for key, weight in safetensors.torch.load_file(one / name).items():
            assert weight.dtype in (torch.float64, torch.int64)  # a curriculum's stage is a whole number
            torch.testing.assert_close(weight, weights[key], rtol=0, atol=1e-6, msg=f"{name}: {key}")


@pytest.mark.parametrize(("case", "parallel"), PAIRS)
def test_two_processes_train_as_one_does(
    home: pathlib.Path, mixture: pathlib.Path, tmp_path: pathlib.Path, case: str, parallel: str
) -> None:
    with double_precision(), drawn_from_the_blocks():
        assert trained(spec_of(case, 1), mixture, tmp_path / "one", Ranks())
    assert_alike(tmp_path / "one", home / f"{case}-{parallel}")
    run_json = json.loads((home / f"{case}-{parallel}" / "run.json").read_text())
    one = json.loads((tmp_path / "one" / "run.json").read_text())
    assert run_json["processes"] == 2
    for key in ("parameters_total", "parameters_active", "train_tokens", "optimizer"):
        assert run_json[key] == one[key]


@pytest.mark.parametrize("parallel", PARALLEL)
@pytest.mark.parametrize("run", ["noisy", "masked"])
def test_two_processes_stop_together_and_continue_with_the_same_bits(
    home: pathlib.Path, parallel: str, run: str
) -> None:
    whole, parts = home / f"{run}-whole-{parallel}", home / f"{run}-parts-{parallel}"
    for name in ("model.safetensors", "metrics.jsonl", "telemetry.safetensors"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    assert "step5" in [path.name for path in (home / f"{run}-parts-{parallel}-kept").glob("step*")]


@pytest.mark.parametrize("parallel", PARALLEL)
def test_one_process_continues_what_two_began(
    home: pathlib.Path, mixture: pathlib.Path, tmp_path: pathlib.Path, parallel: str
) -> None:
    left = home / f"left-{parallel}"
    (kept,) = (home / f"left-{parallel}-kept").glob("step*")
    assert kept.name == "step3"
    assert (kept / "model.safetensors").exists() == (parallel == "ddp")
    assert len(list(kept.glob("*.distcp"))) == (2 if parallel == "fsdp" else 0)  # each process wrote its own
    with double_precision():
        spec = spec_of("documents", 2, parallel)
        assert trained(spec, mixture, left, Ranks(fsdp=parallel == "fsdp"))
        assert trained(spec_of("documents", 1), mixture, tmp_path / "one", Ranks())
    assert_alike(tmp_path / "one", left)


def test_a_sharded_checkpoint_of_another_model_is_refused(
    tmp_path: pathlib.Path, mixture: pathlib.Path, home: pathlib.Path
) -> None:
    kept = home / "noisy-parts-fsdp-kept" / "step5"
    spec = spec_of("dense", 1)
    model = initial_model(spec, 64)
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(ValueError, match=r"step5: holds another run's tensors; they differ in model\.blocks\.0"):
        sharded.load_sharded(kept, State(0, model, optimizer, [], {}), Ranks())


def test_another_number_of_processes_is_refused_unless_asked_for() -> None:
    why = r"training.processes: the run needs 2 processes, but 1 started; launch it with torchrun --nproc-per-node 2"
    settings = noisy("fsdp").training
    with pytest.raises(ValueError, match=why), distributed.join_processes(settings):
        pass
    with distributed.join_processes(settings, processes=1) as ranks:
        assert (ranks.world, ranks.fsdp, ranks.sharded) == (1, True, False)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"training": {"processes": 3}}, "processes: 1 micro-batches of each of 3 processes do not divide 4"),
        (
            {"training": {"processes": 2, "grad_accumulation": 4}},
            "4 micro-batches of each of 2 processes do not divide 4",
        ),
        (
            {"training": {"parallel": "fsdp"}, "optimizer": {"kind": "muon"}},
            "training.parallel: fsdp splits matrices, and muon needs them whole",
        ),
        (
            merge(DIFFUSION, {"training": {"parallel": "fsdp"}, "objective": ADAPTIVE}),
            "objective.importance: its estimator cannot be split among processes; use parallel: ddp",
        ),
    ],
)
def test_crossings_that_cannot_be_are_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        RunSpec.model_validate(merge(BASE, change))


def test_torchrun_launches_a_run(tmp_path: pathlib.Path, mixture: pathlib.Path) -> None:
    (tmp_path / "spec.json").write_text(canonical_json(noisy("ddp")))
    command = ["-m", "speciate", "train", "--spec", str(tmp_path / "spec.json"), "--mixture-folder", str(mixture)]
    command += ["--checkpoint-folder", str(tmp_path / "kept"), "--output-folder", str(tmp_path / "run")]
    source = str(pathlib.Path(verb.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}

    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    done = subprocess.run(
        [*launcher, sys.executable, *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("small seed 0: done") == 1  # only the first process logs
    assert json.loads((tmp_path / "run/run.json").read_text())["processes"] == 2
    assert not list((tmp_path / "kept").iterdir())


def test_random_numbers_are_each_process_s_own_and_new_for_another_number_of_them() -> None:
    state = Ranks().rng_states()
    expected = torch.rand(3)
    Ranks().set_rng_states(state)
    assert torch.equal(torch.rand(3), expected)
    drawn = []
    for rank, world in ((0, 2), (1, 2), (0, 3)):
        Ranks(rank, world).set_rng_states(torch.stack([state, state.flip(0)] if world == 3 else [state] * 3))
        drawn.append(torch.rand(3))
    assert not any(torch.equal(one, expected) for one in drawn)
    assert not torch.equal(drawn[0], drawn[1])
