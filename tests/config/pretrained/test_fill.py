"""Test that a study's models are filled from the checkpoints that its runs start from, and contradictions refused."""

import json
import pathlib
from typing import Any

import pytest
import yaml

from speciate.cli import execute
from speciate.config.extends import merge
from speciate.config.pretrained.fill import fill_from_checkpoints
from speciate.config.run import RunSpec, canonical_json
from speciate.config.study import Study, parse_study, read_study

ROOT = pathlib.Path(__file__).parents[3]
GPT2 = {"model_type": "gpt2", "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64, "layer_norm_epsilon": 1e-6}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
    "tie_word_embeddings": True,
}
MOE = {"kind": "moe", "num_experts": 4, "router": "learned", "balance": "auxiliary"}
EXPERTS = {"block": {"ffn": MOE}}


def write(folder: pathlib.Path, config: dict[str, Any]) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture
def gpt2(tmp_path: pathlib.Path) -> dict[str, Any]:
    """Provide a start from a folder with GPT-2's config."""
    return {"kind": "dense", "origin": {"kind": "folder", "path": write(tmp_path / "gpt2", GPT2)}}


@pytest.fixture
def llama(tmp_path: pathlib.Path) -> dict[str, Any]:
    """Provide a start from a folder with Llama's config."""
    return {"kind": "dense", "origin": {"kind": "folder", "path": write(tmp_path / "llama", LLAMA)}}


def settings(
    base: dict[str, Any] | None, arms: dict[str, dict[str, Any]], model: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return a study's plain data: a base with this start and model, and arms with these changes."""
    whole = yaml.safe_load((ROOT / "studies/parts/small.yaml").read_text())
    whole["base"].pop("model")
    whole["base"] |= ({} if base is None else {"start": base}) | ({} if model is None else {"model": model})
    texts = {"code": {"sources": {"mine": {"kind": "files", "paths": ["*.txt"]}}}}
    analysis = {**whole["analysis"], "reference": next(iter(arms))}
    ablations = {name: {"about": name, "change": change} for name, change in arms.items()}
    return {**whole, "study": "mine", "domains": texts, "ablations": ablations, "analysis": analysis}


def study(*given: Any, **more: Any) -> Study:
    return parse_study(fill_from_checkpoints(settings(*given, **more), "study.yaml").settings, "study.yaml")


def test_a_base_without_a_model_has_the_whole_shape_of_the_checkpoint(gpt2: dict[str, Any]) -> None:
    model = study(gpt2, {"dense": {}}).run("dense", 0).model
    assert (model.width, model.num_layers, model.context, model.norm_epsilon) == (48, 3, 64, 1e-6)
    assert (model.norm, model.position, model.biases, model.tied_head) == ("layer", "learned", True, True)
    assert model.block.ffn.model_dump() == {"kind": "dense", "hidden": 192, "activation": "gelu_tanh"}
    assert model.block.mixer.model_dump()["num_heads"] == 4


def test_experts_and_arms_from_scratch_follow_the_checkpoint_of_the_base(llama: dict[str, Any]) -> None:
    group = {"layer_groups": {"some": {"layers": [1], "block": {"ffn": MOE}}}}
    arms = {
        "dense": {},
        "copies": {"start": "upcycle", "model": EXPERTS},
        "noisy": {"start": {"kind": "upcycle", "noise": 0.5}, "model": group},
        "scratch": {"start": "scratch"},
    }
    made = study(llama, arms)
    dense, copies, noisy, scratch = (made.run(name, 0) for name in arms)
    assert dense.model == scratch.model and dense.model.rotary_base == 5e5 and scratch.start.kind == "scratch"
    ffn = copies.model.block.ffn.model_dump()
    assert (ffn["kind"], ffn["num_experts"], ffn["hidden"], ffn["activation"]) == ("moe", 4, 96, "swiglu")
    assert copies.model.block.mixer == dense.model.block.mixer
    assert noisy.model.block_of(0) == dense.model.block and noisy.model.block_of(1).ffn == copies.model.block.ffn
    assert copies.start.origin_options() == dense.start.origin_options() == noisy.start.origin_options()


def test_an_arm_has_the_shape_of_its_own_checkpoint(gpt2: dict[str, Any], llama: dict[str, Any]) -> None:
    """Check arms against a base that starts from another checkpoint, with keys written and by sweeps."""
    both = {**settings(gpt2, {"one": {}, "two": {"start": llama}})}
    both["sweeps"] = {
        "e": {
            "about": "{n}",
            "grid": {"n": [2, 4]},
            "change": {
                "start": {**llama, "kind": "upcycle"},
                "model": {"block": {"ffn": {**MOE, "num_experts": "{n}"}}},
            },
        }
    }
    made = parse_study(fill_from_checkpoints(both, "study.yaml").settings, "study.yaml")
    alone = study(llama, {"one": {}}).run("one", 0).model
    # position embeddings have no base of wavelengths, so GPT-2 says nothing of it
    assert made.run("two", 0).model == alone
    assert made.run("one", 0).model == study(gpt2, {"one": {}}).run("one", 0).model
    swept = made.run("e_n2", 0).model
    assert swept.block.mixer == alone.block.mixer and swept.block.ffn.model_dump()["hidden"] == 96
    with_start = settings(None, {"one": {"start": gpt2}, "two": {"start": llama}})
    made = parse_study(fill_from_checkpoints(with_start, "study.yaml").settings, "study.yaml")
    assert made.run("two", 0).model == alone


def test_a_written_key_that_agrees_stays_and_a_shorter_context_may_be_written(llama: dict[str, Any]) -> None:
    model = {"width": 40, "context": 64, "norm_epsilon": 1.0000001e-6, "block": {"mixer": "attention"}}
    run = study(llama, {"dense": {}}, model).run("dense", 0)
    assert (run.model.context, run.model.norm_epsilon) == (64, 1.0000001e-6)


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "base": ({"width": 512}, {}, "base.model.width: is 512, and the checkpoint FOLDER has 40"),
    "norm": ({"norm": "layer"}, {}, "base.model.norm: is 'layer', and the checkpoint FOLDER has 'rms'"),
    "arm": ({}, {"model": {"num_layers": 4}}, "ablations.x.model.num_layers: is 4, and the checkpoint FOLDER has 2"),
    "flag": ({"biases": True}, {}, "base.model.biases: is True, and the checkpoint FOLDER has False"),
    "heads": (
        {},
        {"model": {"block": {"mixer": {"num_heads": 8}}}},
        "ablations.x.model.block.mixer.num_heads: is 8, and the checkpoint FOLDER has 4",
    ),
    "mixer": (
        {},
        {"model": {"block": {"mixer": {"kind": "mamba"}}}},
        "ablations.x.model.block.mixer.kind: is 'mamba', and the checkpoint FOLDER has 'attention'",
    ),
    "experts": (
        {},
        {"start": "upcycle", "model": {"block": {"ffn": {**MOE, "hidden": 32}}}},
        "ablations.x.model.block.ffn.hidden: is 32, and the checkpoint FOLDER has 96",
    ),
    "group": (
        {},
        {
            "start": "upcycle",
            "model": {"layer_groups": {"a": {"layers": [0], "block": {"ffn": {**MOE, "activation": "gelu"}}}}},
        },
        "ablations.x.model.layer_groups.a.block.ffn.activation: is 'gelu', and the checkpoint FOLDER has 'swiglu'",
    ),
    "depth": (
        {"block": {"depth": {"kind": "mod", "capacity": 0.5}}},
        {},
        "base.model.block.depth.kind: is 'mod', and the checkpoint FOLDER has 'every'",
    ),
    "context": (
        {"context": 1024},
        {},
        "base.model.context: is 1024, and the checkpoint FOLDER has at most 512",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_written_key_that_contradicts_the_checkpoint_is_refused_by_name(case: str, llama: dict[str, Any]) -> None:
    model, change, says = BAD[case]
    with pytest.raises(ValueError, match=r"^study\.yaml: ") as caught:
        study(llama, {"x": change}, model)
    message = says.replace("FOLDER", llama["origin"]["path"])
    assert str(caught.value).splitlines() == [f"study.yaml: {message}"]


def test_experts_that_are_drawn_may_have_another_size(llama: dict[str, Any]) -> None:
    made = study(llama, {"x": {"model": {"block": {"ffn": {**MOE, "hidden": 32}}}}})
    assert made.run("x", 0).model.block.ffn.model_dump()["hidden"] == 32


def test_a_study_without_a_checkpoint_stays_as_it_is() -> None:
    for file in [ROOT / "config.yaml", *(ROOT / "studies").glob("*.yaml")]:
        plain = yaml.safe_load(file.read_text())
        filled = fill_from_checkpoints(plain, str(file))
        assert filled.settings == plain and filled.origins == {}


def test_the_filled_study_is_printed_with_its_origins_and_needs_the_checkpoint_no_more(
    llama: dict[str, Any], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(settings(llama, {"x": {"start": "upcycle", "model": EXPERTS}})))
    wanted = read_study(file)
    execute(["config", "--study", str(file)])
    text = capsys.readouterr().out
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert {f"width: 40 # checkpoint {tmp_path}/llama", f"hidden: 96 # checkpoint {tmp_path}/llama"} <= lines
    assert "kind: folder # base.start" in lines
    (tmp_path / "llama" / "config.json").unlink()
    assert canonical_json(parse_study(yaml.safe_load(text), "printed")) == canonical_json(wanted)
    with pytest.raises(ValueError, match=r"study.yaml: base.start.origin: .*config.json: cannot be read"):
        read_study(file)


@pytest.mark.parametrize("name", ["smollm2_135m", "gpt2"])
def test_the_parts_of_published_models_fill_a_study_without_a_network(name: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    part = yaml.safe_load((ROOT / f"studies/parts/models/{name}.yaml").read_text())
    base = part.pop("base")
    whole = merge(settings(base["start"], {"dense": {}, "copies": {"start": "upcycle", "model": EXPERTS}}), part)
    made = parse_study(fill_from_checkpoints(whole, name).settings, name)
    run: RunSpec = made.run("copies", 0)
    assert run.model.width == {"smollm2_135m": 576, "gpt2": 768}[name]
    assert run.model.block.ffn.model_dump()["hidden"] == {"smollm2_135m": 1536, "gpt2": 3072}[name]
    assert run.model.difference(made.run("dense", 0).model) == ""
    whole["base"]["model"] = {"width": 32}
    with pytest.raises(ValueError, match=r"base\.model\.width: is 32, and the checkpoint .* has (576|768)"):
        fill_from_checkpoints(whole, name)
