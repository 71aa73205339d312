"""Test the explorer of a study, on runs of a few steps, against the runs' own files and models."""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch

from speciate.analysis import tables
from speciate.config.contracts.slots import DEPTH, EXPERTS, KEYS, MASKS
from speciate.config.run import RunSpec, canonical_json
from speciate.config.stage_specs import Arm, ExploreSpec
from speciate.data.blocks import read_block_set
from speciate.reporting.explorer import study
from speciate.reporting.explorer.data import ExplorerData
from speciate.reporting.explorer.study_files import Files, Run, read_probe
from speciate.selection.selection import record_selections
from speciate.stages import evaluate, explore, train
from speciate.training.checkpoint.load_run import load_run

GSA = {"kind": "gsa", "num_heads": 2, "indexer": {"kind": "kl", "width": 8}, "budget": {"kind": "fixed", "k": 4}}
DENSE = {"kind": "dense", "hidden": 16}
ARMS: dict[str, dict[str, Any]] = {
    "dense": {"model": {"block": {"ffn": DENSE}}},
    "learned": {"model": {"block": {"ffn": {"top_k": 2}}}},
    "gsa": {"model": {"block": {"mixer": GSA, "ffn": DENSE}}},
    "depth": {"model": {"block": {"ffn": DENSE, "depth": {"kind": "mod", "capacity": 0.5}}}},
    "masked": {
        "model": {"causal": False, "block": {"ffn": DENSE}},
        "objective": {
            "kind": "masked_diffusion",
            "importance": "learned",
            "masking": "importance",
            "eval_draws": 4,
        },
    },
}
SPEC = ExploreSpec(
    study="small",
    arms=tuple(Arm(name=arm, about=f"About {arm}") for arm in ARMS),
    seeds=(0,),
    num_steps=dict.fromkeys(ARMS, 12),
)


class Never:
    """Never ask to stop."""

    received = 15

    def __bool__(self) -> bool:
        return False


@pytest.fixture(scope="module")
def files(mixture: pathlib.Path, tmp_path_factory: pytest.TempPathFactory, run_spec: Callable[..., RunSpec]) -> Files:
    """Train every arm, observe it as `evaluate` does, and write tables with a few rows."""
    folder = tmp_path_factory.mktemp("study")
    details = []
    for arm, change in ARMS.items():
        run_folder, spec = folder / "runs" / arm / "seed0", run_spec(ablation=arm, **change)
        run_folder.mkdir(parents=True)
        (run_folder / "spec.json").write_text(canonical_json(spec))
        assert train.train(spec, mixture, run_folder, folder / f"checkpoints-{arm}", stop=Never())  # type: ignore[arg-type]
        run, model = load_run(run_folder, 64)
        objective, blocks = run.objective.component().Objective(run.objective), read_block_set(mixture, "probe")
        arrays, _ = evaluate.probe_selectors(model, objective, blocks)
        safetensors.numpy.save_file(arrays, run_folder / "probe.safetensors")
        details.append(evaluate.token_details(model, objective, blocks).assign(ablation=arm, seed=0, text=""))
    experts = [
        {"slot": slot, "domain": domain, "share": 0.25, "lift": 1.5 if slot == 1 else 1.0, "placebo_lift": 1.0}
        for slot in range(4)
        for domain in ("all", "code", "prose")
    ]
    run = {"ablation": "learned", "seed": 0, "selector": "blocks.0.ffn.router", "layer": 0}
    costs = [
        {"intervention": name, "slot": 1, "domain": domain, "cost_nats": cost, "cost_low_nats": 0.0}
        | {"cost_high_nats": 1.0, "clean_nats": 4.0, "tokens": 9, "documents": 2, "blocks": 2}
        for name, cost in (("masked_slot", 0.5), ("masked_control", 0.25))
        for domain in ("all", "code", "prose")
    ]
    made = {
        "experts": pd.DataFrame(experts).assign(**run, step=12, probe="full"),
        "selectors": pd.DataFrame(),
        "runs": pd.DataFrame(),
        "interventions": pd.DataFrame(costs).assign(**run),
        "details": pd.concat(details, ignore_index=True),
    }
    (folder / "tables").mkdir()
    for name, rows in made.items():
        tables.write_parquet(tables.conform(name, rows), name, folder / "tables" / f"{name}.parquet")
    return Files(folder / "runs", mixture, folder / "tables")


def pieces(ids: Sequence[int]) -> list[str]:
    return [f"<{token}>" for token in ids]


def made(files: Files, spec: ExploreSpec = SPEC) -> ExplorerData:
    def keys(run: Run) -> dict[str, explore.KeyArray]:
        return explore.chosen_keys(files.runs / run[0] / f"seed{run[1]}", files.mixture)

    return study.from_study(spec, files, pieces, keys)


@pytest.fixture(scope="module")
def data(files: Files) -> ExplorerData:
    return made(files)


def test_each_run_with_a_selector_is_a_model(data: ExplorerData) -> None:
    assert [model.name for model in data.models] == [
        "learned, seed 0",
        "gsa, seed 0",
        "depth, seed 0",
        "masked, seed 0",
    ]
    kinds = [{layer.kind for layer in model.layers} for model in data.models]
    assert kinds == [{EXPERTS}, {KEYS}, {DEPTH}, {MASKS}]
    assert [layer.path for layer in data.models[0].layers] == ["blocks.0.ffn.router", "blocks.1.ffn.router"]
    assert data.models[0].about == "About learned."
    assert any("dense" in note for note in data.notes)


def test_the_texts_are_those_of_the_probe_set(data: ExplorerData, mixture: pathlib.Path) -> None:
    token_BT = np.load(mixture / "probe.tokens.npy")
    read = [document for document in data.documents if not document.generated_by]
    np.testing.assert_array_equal(data.token_P[: token_BT.size], token_BT.reshape(-1))
    assert [(document.name, document.label, document.num_tokens) for document in read[:3]] == [
        ("probe0", "code", 9),
        ("probe1", "code", 7),
        ("probe2", "prose", 9),
    ]
    assert data.pieces[int(token_BT[0, 0])] == f"<{token_BT[0, 0]}>"


def test_choices_are_those_of_the_routers(data: ExplorerData, files: Files) -> None:
    """Run the finished model on one block, and compare with the router's own choice."""
    _, model = load_run(files.runs / "learned/seed0", 64)
    blocks = read_block_set(files.mixture, "probe")
    with torch.no_grad(), record_selections(model) as record:
        model.hidden(torch.from_numpy(blocks.tokens[3:4].astype(np.int64)))
    for layer in data.models[0].layers:
        chosen_NS = (record[layer.path].chosen_NS > 0).numpy()
        expected = [set(np.flatnonzero(row)) for row in chosen_NS]
        assert [set(row) for row in layer.checks[-1].choice_MK[48:64].tolist()] == expected
        assert layer.checks[-1].step == 12 and not layer.ordered


def test_earlier_steps_are_those_of_the_telemetry(data: ExplorerData, files: Files) -> None:
    early = safetensors.numpy.load_file(files.runs / "learned/seed0/telemetry.safetensors")
    layer = data.models[0].layers[1]
    assert [check.step for check in layer.checks] == [0, 2, 4, 8, 12]
    for place, check in enumerate(layer.checks[:-1]):
        bits = np.unpackbits(early["blocks.1.ffn.router/choice"][place], axis=1, count=4)
        assert check.token_M is not None and check.token_M.tolist() == list(range(len(bits)))
        assert [set(row) for row in check.choice_MK.tolist()] == [set(np.flatnonzero(row)) for row in bits]


def test_the_keys_are_those_that_the_indexer_chose(data: ExplorerData, files: Files) -> None:
    """The ranges of distance of the keys are the slots that evaluation recorded."""
    layer = data.models[1].layers[0]
    choice_PS = safetensors.numpy.load_file(files.runs / "gsa/seed0/probe.safetensors")[f"{layer.path}/choice"]
    assert layer.key_MJ is not None and layer.key_MJ.shape == (128, 4)
    for index, row in enumerate(layer.key_MJ.tolist()):
        position = index % 16
        far = [back for back in row if back >= 0]
        assert len(far) == min(4, position + 1)
        slots = {0 if back == position else 1 if back == 0 else 2 + int(np.log2(back)) for back in far}
        assert slots == set(np.flatnonzero(choice_PS[index])), index
    assert layer.slots[:4] == ("first token", "itself", "1 back", "2 to 3 back")


def test_keys_that_do_not_fit_are_left_out(data: ExplorerData, files: Files) -> None:
    all_of = {layer.path: layer.key_MJ for layer in data.models[1].layers if layer.key_MJ is not None}
    probe = read_probe(files.mixture, 8)
    # two layers with four keys: a block of 16 tokens has 128 bytes
    for path, few in study.some_keys(all_of, 300, probe).items():
        np.testing.assert_array_equal(few[:32], all_of[path][:32])
        assert len(few) == 128 and (few[32:] == -1).all()


def test_importance_and_the_order_of_masks(data: ExplorerData, files: Files) -> None:
    details = pd.read_parquet(files.tables / "details.parquet")
    layer = data.models[3].layers[0]
    rows = details[details["what"] == "importance"]
    assert layer.score_M is not None
    for row in rows.head(20).itertuples():
        assert layer.score_M[row.item * 16 + row.position] == np.float32(row.x)
    texts = [document for document in data.documents if document.generated_by]
    assert {document.generated_by for document in texts} == {"masked, seed 0"}
    first = details[details["what"] == sorted(set(details["what"]) - {"importance"})[0]].sort_values("position")
    assert data.order_P is not None
    np.testing.assert_array_equal(data.order_P[128 : 128 + len(first)], first["x"].to_numpy(np.int64))
    assert (data.order_P[:128] == -1).all()


def test_lifts_and_knock_outs_are_those_of_the_tables(data: ExplorerData) -> None:
    layer = data.models[0].layers[0]
    assert layer.experts is not None and layer.lifts is not None
    assert layer.experts.set_index("slot")[["share", "cost", "control"]].loc[1].tolist() == [0.25, 0.5, 0.25]
    lift = layer.lifts.set_index(["slot", "label"]).loc[(1, "code")]
    assert (lift["lift"], lift["cost"], lift["control"]) == (1.5, 0.5, 0.25)
    assert data.models[0].layers[1].experts is None


def test_what_does_not_fit_is_left_out_and_named(files: Files) -> None:
    small = made(files, SPEC.model_copy(update={"most_choices": 2000}))
    assert sum(document.num_tokens for document in small.documents if not document.generated_by) < 128
    assert any("of the 8 blocks of the probe set" in text for text in small.left_out)
    assert any("Earlier steps are left out of" in text for text in small.left_out)
    assert not any("of the 8 blocks" in text for text in made(files).left_out)


def test_choices_of_another_probe_set_are_refused(files: Files, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "runs/learned/seed0"
    folder.mkdir(parents=True)
    arrays = safetensors.numpy.load_file(files.runs / "learned/seed0/probe.safetensors")
    cut = {name: value[:50] if name.endswith("/choice") else value for name, value in arrays.items()}
    safetensors.numpy.save_file(cut, folder / "probe.safetensors")
    safetensors.numpy.save_file({}, folder / "telemetry.safetensors")
    with pytest.raises(ValueError, match=r"learned, seed 0, selector blocks\.0\.ffn\.router: 50 choices"):
        made(Files(tmp_path / "runs", files.mixture, files.tables))


def test_a_part_of_a_character_is_shown_by_its_bytes() -> None:
    from tokenizers import Tokenizer, decoders, models

    # in a byte-level vocabulary the three bytes of a dash, e2 80 94, are written as the symbols â, Ģ and Ķ
    tokenizer = Tokenizer(models.BPE({"â": 0, "ĢĶ": 1, "âĢĶ": 2, "Ġa": 3}, []))
    tokenizer.decoder = decoders.ByteLevel()
    assert [explore.piece_of(tokenizer, token) for token in range(4)] == ["⟨e2⟩", "⟨80 94⟩", "—", " a"]


def test_the_verb_writes_one_page_with_the_same_bytes_each_time(
    files: Files, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import Tokenizer, models

    from speciate.cli import execute

    vocabulary = {f"w{token}": token for token in range(64)}
    Tokenizer(models.WordLevel(vocabulary, unk_token="w0")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "spec.json").write_text(canonical_json(SPEC))
    written = []
    for name in ("one", "two"):
        arguments = ["--spec", tmp_path / "spec.json", "--runs", files.runs, "--tables", files.tables]
        arguments += ["--mixture-folder", files.mixture, "--tokenizer-folder", tmp_path]
        execute(["explore", *map(str, [*arguments, "--output", tmp_path / f"{name}.html"])])
        written.append((tmp_path / f"{name}.html").read_bytes())
    assert written[0] == written[1]
    assert b"small: what each selector chooses" in written[0]
    assert json.loads((tmp_path / "spec.json").read_text())["study"] == "small"
