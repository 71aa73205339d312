"""Test that frozen layers keep their weights, that what is kept of them changes no bit, and what is refused."""

import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.conftest import BASE, LENGTH, VOCABULARY

from speciate.config.extends import merge
from speciate.config.run import RunSpec, canonical_json
from speciate.config.stage_specs import InterveneSpec
from speciate.data.blocks import TrainBlocks
from speciate.data.sampler import block_rows
from speciate.model.profiling.flops import flops_per_token
from speciate.model.token_batch import in_domains
from speciate.model.transformer import Transformer
from speciate.selection.selection import auxiliary_loss, record_selections, selectors
from speciate.stages import intervene
from speciate.stages import train as verb
from speciate.training.build_model import build_model
from speciate.training.checkpoint.load_run import load_run
from speciate.training.checkpoint.weights import save_weights
from speciate.training.distributed.ranks import ALONE
from speciate.training.frozen_layers import FOLDER
from speciate.training.prepare import initial_model, initial_state
from speciate.training.resource_estimate import estimate_resources

DENSE: dict[str, Any] = {"kind": "dense", "hidden": 16, "activation": "gelu"}
MOE: dict[str, Any] = {
    "kind": "moe",
    "num_experts": 4,
    "hidden": 16,
    "activation": "gelu",
    "router": {"kind": "learned", "noise_std": 0.1, "noise_until": 0.5},
    "balance": {"kind": "auxiliary", "weight": 0.01},
}
FROZEN = 2


class Never:
    """Never ask to stop."""

    received = None

    def __bool__(self) -> bool:
        return False


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)


def spec(*, frozen: int = FROZEN, **changes: Any) -> RunSpec:
    """Make a run of three layers, experts in the last, that starts from the run `origin`."""
    block = {**BASE["model"]["block"], "ffn": DENSE}
    own: dict[str, Any] = {
        "model": {
            "num_layers": 3,
            "block": block,
            "exceptions": [{"layers": [2], "block": {**block, "ffn": MOE}}],
            "tied_head": False,
            "position": "rotary",
        },
        "training": {"num_steps": 6},
        "start": {
            "kind": "upcycle",
            "origin": {"kind": "run", "ablation": "origin"},
            "noise": 0.01,
            "frozen_layers": frozen,
        },
    }
    return RunSpec.model_validate(merge(merge(BASE, own), changes))


@pytest.fixture
def origin(tmp_path: pathlib.Path) -> pathlib.Path:
    """Write a dense run with a tied head, and return its weights."""
    change = {"tied_head": True, "exceptions": []}
    run = RunSpec.model_validate(
        merge(spec(frozen=0).model_dump(mode="json"), {"ablation": "origin", "model": change, "start": "scratch"})
    )
    folder = tmp_path / "origin"
    folder.mkdir()
    (folder / "spec.json").write_text(canonical_json(run))
    torch.manual_seed(17)
    save_weights(Transformer(run.model, VOCABULARY), folder / "model.safetensors")
    return folder / "model.safetensors"


def trained(run: RunSpec, mixture: pathlib.Path, folder: pathlib.Path, origin: pathlib.Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(canonical_json(run))
    assert verb.train(run, mixture, folder, folder / "checkpoints", stop=Never(), start=origin)  # type: ignore[arg-type]
    return dict(load_run(folder, VOCABULARY)[1].state_dict())


def kept_files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.rglob("*.npy"))


@pytest.mark.parametrize("separate", [False, True])
def test_what_is_kept_changes_no_bit(
    mixture: pathlib.Path, tmp_path: pathlib.Path, origin: pathlib.Path, monkeypatch: pytest.MonkeyPatch, separate: bool
) -> None:
    run = spec(model={"separate_documents": separate})
    without = trained(run, mixture, tmp_path / "without", origin)
    monkeypatch.setenv(FOLDER, str(tmp_path / "kept"))
    first = trained(run, mixture, tmp_path / "first", origin)
    files = kept_files(tmp_path / "kept")
    assert len(files) >= 24
    dates = [file.stat().st_mtime_ns for file in files]
    second = trained(run, mixture, tmp_path / "second", origin)
    assert kept_files(tmp_path / "kept") == files
    assert [file.stat().st_mtime_ns for file in files] == dates
    for name, tensor in without.items():
        assert torch.equal(tensor, first[name]), name
        assert torch.equal(tensor, second[name]), name
    # whatever a run says of itself is the same, and says nothing of the layers that only some runs compute
    for name in ("telemetry.safetensors", "metrics.jsonl"):
        contents = [(tmp_path / run_name / name).read_bytes() for run_name in ("without", "first", "second")]
        assert contents[0] == contents[1] == contents[2], name
    assert b"blocks.2." in contents[0] and b"blocks.0." not in contents[0]


def test_only_what_is_above_learns(mixture: pathlib.Path, tmp_path: pathlib.Path, origin: pathlib.Path) -> None:
    run = spec()
    before = dict(initial_model(run, VOCABULARY, origin).state_dict())
    after = trained(run, mixture, tmp_path / "run", origin)
    below = ("token_embedding.", *(f"blocks.{layer}." for layer in range(FROZEN)))
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == name.startswith(below), name
    # the head of its own began as a copy of the embedding
    assert torch.equal(before["unembedding.weight"], before["token_embedding.weight"])


def test_it_trains_as_a_whole_model_whose_lower_layers_have_no_gradient(
    mixture: pathlib.Path, tmp_path: pathlib.Path, origin: pathlib.Path
) -> None:
    run = spec(training={"num_steps": 2})
    ours = trained(run, mixture, tmp_path / "run", origin)
    # the same two steps by hand, the whole model in one batch
    blocks = TrainBlocks(mixture)
    state = initial_state(run, VOCABULARY, origin, ALONE)
    model = state.model
    model.frozen_layers = None
    for name, parameter in model.named_parameters():
        frozen = name.startswith(("token_embedding.", "blocks.0.", "blocks.1."))
        assert parameter.requires_grad != frozen
    assert {id(p) for group in state.optimizer.param_groups for p in group["params"]} == {
        id(p) for p in model.parameters() if p.requires_grad
    }
    objective = run.objective.component().Objective(run.objective)
    schedule = run.schedule.component()
    for step in range(2):
        factor = float(schedule.factor(run.schedule, step, 2))
        for group in state.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        for selector in selectors(model).values():
            selector.before_update(step / 2)
        rows = block_rows(run.seed, step, 4, len(blocks), rank=0, world=1)
        with record_selections(model) as record, in_domains(torch.from_numpy(blocks.domains(rows))):
            loss = objective(model, torch.from_numpy(blocks.tokens(rows)))
        own = auxiliary_loss(record)
        (loss + own).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), run.training.max_grad_norm)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_a_damaged_file_is_made_again(
    tmp_path: pathlib.Path, origin: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "kept"))
    token_BT = torch.randint(0, VOCABULARY, (3, LENGTH))
    model = initial_model(spec(), VOCABULARY, origin).eval()
    expected = model(token_BT)
    files = kept_files(tmp_path / "kept")
    assert len(files) == 3
    good = [file.read_bytes() for file in files]
    files[0].write_bytes(good[0][:50])
    files[1].write_bytes(b"")
    np.save(files[2], np.zeros((1, 2, 3), np.float32))
    assert torch.equal(model(token_BT), expected)
    assert [file.read_bytes() for file in files] == good


def test_other_weights_tokens_and_contexts_have_other_files(
    tmp_path: pathlib.Path, origin: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "kept"))
    folder = tmp_path / "kept"
    token_BT = torch.arange(LENGTH).unsqueeze(0)
    model = initial_model(spec(model={"separate_documents": True}), VOCABULARY, origin).eval()
    model(token_BT)
    assert len(kept_files(folder)) == 1
    model(token_BT.flip(1))
    assert len(kept_files(folder)) == 2
    model(token_BT, (token_BT > 4).long())
    assert len(kept_files(folder)) == 3
    changed = model(token_BT)
    with torch.no_grad():
        model.blocks[0].ffn.out.weight.mul_(2)
    assert not torch.equal(model(token_BT), changed)
    assert len(list(folder.iterdir())) == 2


def test_other_settings_with_the_same_weights_have_other_files(
    tmp_path: pathlib.Path, origin: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "kept"))
    token_BT = torch.arange(LENGTH).unsqueeze(0)
    outputs = []
    for base in (10000.0, 100.0):
        model = build_model(spec(model={"rotary_base": base}), VOCABULARY).eval()
        model.load_state_dict(initial_model(spec(), VOCABULARY, origin).state_dict())
        outputs.append(model(token_BT))
    assert not torch.equal(*outputs)
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_interventions_begin_above_frozen_layers(
    mixture: pathlib.Path, tmp_path: pathlib.Path, origin: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(spec(), mixture, tmp_path / "run", origin)
    settings = {"blocks": 2, "max_slots": 8, "resamples": 19, "confidence": 0.95, "draw_seed": 0}
    one = intervene.intervene(InterveneSpec.model_validate({"run": spec(), **settings}), tmp_path / "run", mixture)
    # the same run, read as one in which nothing is frozen
    whole = spec(frozen=0)
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    (tmp_path / "whole/spec.json").write_text(canonical_json(whole))
    two = intervene.intervene(InterveneSpec.model_validate({"run": whole, **settings}), tmp_path / "whole", mixture)
    assert len(one) == len(two) > 10
    np.testing.assert_allclose(one["cost_nats"], two["cost_nats"], atol=2e-6)


def test_resources_of_frozen_layers(origin: pathlib.Path) -> None:
    whole, frozen = (estimate_resources(spec(frozen=number), VOCABULARY, LENGTH) for number in (0, FROZEN))
    layer = 4 * 16 * 16 + 4 * 16 + 2 * 16 * 16 + 16 + 16 + 2 * 2 * 16
    frozen_numbers = 4 * (FROZEN * layer + VOCABULARY * 16)
    assert whole.memory["weights"] == frozen.memory["weights"]
    assert whole.memory["gradients"] - frozen.memory["gradients"] == frozen_numbers
    # forward and backward, 2 and 4 operations for each element of a matrix, and attention's two products
    matrices = 4 * 16 * 16 + 2 * 16 * 16
    models = [initial_model(spec(frozen=number), VOCABULARY, origin) for number in (0, FROZEN)]
    saved = flops_per_token(models[0], LENGTH) - flops_per_token(models[1], LENGTH)
    assert saved == FROZEN * (6 * matrices + 3 * 2 * 2 * LENGTH * 16)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no layer left": ({"frozen": 3}, "start.frozen_layers: 3 of 3 layers leave none that learns"),
    "a selector": (
        {"model": {"exceptions": [{"layers": [0, 2], "block": {**BASE["model"]["block"], "ffn": MOE}}]}},
        r"layer 0 has a selector \(learned\), which could not learn",
    ),
    "sharded": ({"training": {"parallel": "fsdp"}}, "fsdp splits weights that these layers need whole"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_frozen_is_refused(case: str) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        spec(**changes)


def test_a_tied_head_cannot_start_from_one_of_its_own(tmp_path: pathlib.Path, origin: pathlib.Path) -> None:
    run = spec(frozen=0)
    untied = tmp_path / "untied"
    untied.mkdir()
    own = merge(run.model_dump(mode="json"), {"ablation": "origin", "model": {"exceptions": []}, "start": "scratch"})
    origin_run = RunSpec.model_validate(own)
    (untied / "spec.json").write_text(canonical_json(origin_run))
    save_weights(Transformer(origin_run.model, VOCABULARY), untied / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.tied_head is True here, False there"):
        initial_model(spec(frozen=0, model={"tied_head": True}), VOCABULARY, untied / "model.safetensors")
