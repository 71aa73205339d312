"""Test that an exported model gives the run's logits in transformers, and the same text with and without a cache."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import stat
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.model.hf.alone import load_alone
from tests.model.hf.load_alone import TEXT
from transformers import AutoModelForCausalLM, AutoTokenizer

from speciate.cli import execute
from speciate.config.extends import merge
from speciate.config.run import ModelSpec, RunSpec, canonical_json
from speciate.data.tokens.fitted import FittedTokenizer
from speciate.data.tokens.tokenizer import bpe
from speciate.model.hf import auto_classes
from speciate.tools import export
from speciate.training.build_model import build_model
from speciate.training.checkpoint.load_run import load_run
from speciate.training.checkpoint.weights import save_weights

TEXTS = ["the cat sat on the mat, and the dog sat on the log", "def f(x):\n    return x + 1\n"] * 20
ENTRIES, CONTEXT = 280, 24
MOE = {"kind": "moe", "num_experts": 4, "hidden": 16, "top_k": 2, "router": "learned", "balance": "none"}
LLAMA = {"norm": "rms", "position": "rotary", "biases": False}
SWIGLU = {"kind": "dense", "hidden": 24, "activation": "swiglu"}
DENSE = {"kind": "dense", "hidden": 24}
MAMBA = {"kind": "mamba", "state": 4}
ROM = {"kind": "rom", "state": 4, "num_experts": 3, "routed": "shared", "router": "learned", "balance": "none"}
INDEXER = {"kind": "kl", "heads": 2, "width": 8}
GSA = {"kind": "gsa", "num_heads": 4, "indexer": INDEXER, "budget": {"kind": "fixed", "k": 4}}
MOD = {"kind": "mod", "capacity": 0.5, "hidden": 8}
ROM_LAYER = {"layers": [1], "block": {"mixer": ROM, "ffn": MOE, "depth": MOD}}
SHAPES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", {}, {"kind": "dense", "hidden": 40, "activation": "gelu_tanh"}),
    "gpt2, untied": ("GPT2LMHeadModel", {"tied_head": False}, {"kind": "dense", "hidden": 40, "activation": "gelu"}),
    "llama": ("LlamaForCausalLM", {**LLAMA, "tied_head": False}, SWIGLU),
    "llama, tied": ("LlamaForCausalLM", LLAMA, SWIGLU),
    "qwen2": ("Qwen2ForCausalLM", {**LLAMA, "block": {"mixer": {"qkv_bias": True, "num_kv_heads": 2}}}, SWIGLU),
    "qwen3": ("Qwen3ForCausalLM", {**LLAMA, "block": {"mixer": {"qk_norm": True, "head_width": 12}}}, SWIGLU),
    "gemma": ("GemmaForCausalLM", {**LLAMA, "embedding_scale": 32**0.5}, {**SWIGLU, "activation": "geglu_tanh"}),
    "wide heads, scaled": (
        "SpeciateForCausalLM",
        {"embedding_scale": 3.0, "block": {"mixer": {"head_width": 6, "qk_norm": True, "qkv_bias": False}}},
        DENSE,
    ),
    "no one's": ("SpeciateForCausalLM", {"position": "rotary"}, {"kind": "dense", "hidden": 40}),
    "mixtral": (
        "MixtralForCausalLM",
        {**LLAMA, "tied_head": False, "norm_epsilon": 1e-6},
        {**MOE, "activation": "swiglu"},
    ),
    "mixtral, tied": ("MixtralForCausalLM", LLAMA, {**MOE, "top_k": 3, "activation": "swiglu", "balance": "auxiliary"}),
    "experts": ("SpeciateForCausalLM", {"tied_head": False}, MOE),
    "frozen": ("SpeciateForCausalLM", LLAMA, {**MOE, "router": "frozen", "activation": "swiglu"}),
    "hash": ("SpeciateForCausalLM", {}, {**MOE, "router": "hash", "top_k": 1}),
    "bias": ("SpeciateForCausalLM", {}, {**MOE, "balance": {"kind": "bias", "rate": 0.1}}),
    "mamba": ("SpeciateForCausalLM", {"block": {"mixer": MAMBA}}, DENSE),
    "rom": ("SpeciateForCausalLM", {"block": {"mixer": ROM}}, DENSE),
    "gsa": ("SpeciateForCausalLM", {"block": {"mixer": GSA}}, DENSE),
    "mod": ("SpeciateForCausalLM", {"block": {"depth": MOD}}, DENSE),
    "mixed": ("SpeciateForCausalLM", {"block": {"depth": MOD}, "exceptions": [ROM_LAYER]}, MOE),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Write a tokenizer's folder as the fit stage does."""
    folder = tmp_path_factory.mktemp("tokenizer")
    options = bpe.Options(kind="bpe", entries=ENTRIES)
    fitted = FittedTokenizer(bpe.build(options, iter(TEXTS), None).to_str(), "bpe")
    for name, content in fitted.files().items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def finished(tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    """Write a run's folder with random weights, large enough to matter."""

    def write(
        changes: dict[str, Any], ffn: dict[str, Any], objective: Any = "causal", name: str = "run"
    ) -> pathlib.Path:
        block = {"mixer": {"kind": "attention", "num_heads": 4}, "ffn": ffn, "depth": "every"}
        model = merge({"width": 32, "num_layers": 2, "context": CONTEXT, "block": block, "init_std": 0.2}, changes)
        settings = {"ablation": "arm", "seed": 0, "model": {**model, "embedding_std": 0.3}}
        settings |= {"objective": objective, "optimizer": "adamw", "schedule": "cosine"}
        run = RunSpec.model_validate(settings)
        torch.manual_seed(0)
        built = build_model(run, ENTRIES)
        for path, buffer in built.named_buffers():
            if path.endswith("bias_S"):
                buffer.normal_()  # the export must include what loss-free balancing has learned
        folder = tmp_path / name
        folder.mkdir()
        (folder / "spec.json").write_text(canonical_json(run))
        save_weights(built, folder / "model.safetensors")
        return folder

    return write


def exported(run: pathlib.Path, tokenizer: pathlib.Path, target: pathlib.Path, *more: str) -> pathlib.Path:
    """Return what the command line writes."""
    arguments = ["--run", str(run), "--tokenizer", str(tokenizer), "--output", str(target), *more]
    execute(["export", *arguments])
    return target


@pytest.mark.parametrize("shape", ["llama", "experts"])
def test_the_folder_has_the_modes_of_the_umask(
    tmp_path: pathlib.Path, tokenizer: pathlib.Path, finished: Callable[..., pathlib.Path], shape: str
) -> None:
    _, changes, ffn = SHAPES[shape]
    run, before = finished(changes, ffn), os.umask(0o027)
    try:
        folder = exported(run, tokenizer, tmp_path / "out" / "model")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    assert "model.safetensors" in modes
    assert {name: mode for name, mode in modes.items() if mode != 0o640} == {"model": 0o750}


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_is_the_same_in_transformers(
    tmp_path: pathlib.Path, tokenizer: pathlib.Path, finished: Callable[..., pathlib.Path], shape: str
) -> None:
    architecture, changes, ffn = SHAPES[shape]
    run = finished(changes, ffn)
    folder = exported(run, tokenizer, tmp_path / "out" / "model")
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert type(theirs).__name__ == architecture
    ours = load_run(run, ENTRIES)[1]
    token_BT = torch.randint(1, ENTRIES, (2, 10))  # token 0 ends a text, and pads
    expected = ours(token_BT)
    torch.testing.assert_close(theirs(token_BT).logits, expected, rtol=1e-4, atol=1e-4)

    greedy = theirs.generate(
        token_BT,
        max_new_tokens=10,
        do_sample=False,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    whole = ours(greedy.sequences)
    assert torch.equal(greedy.sequences[:, 10:], whole[:, 9:-1].argmax(-1))
    torch.testing.assert_close(torch.stack(greedy.logits, dim=1), whole[:, 9:-1], rtol=1e-4, atol=1e-4)

    theirs.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(again(token_BT).logits, theirs(token_BT).logits)


@torch.no_grad()
@pytest.mark.parametrize("shape", ["gpt2", "experts"])
def test_other_weights_of_the_run_are_exported_when_asked(
    tmp_path: pathlib.Path, tokenizer: pathlib.Path, finished: Callable[..., pathlib.Path], shape: str
) -> None:
    _, changes, ffn = SHAPES[shape]
    run = finished(changes, ffn)
    average = load_run(run, ENTRIES)[1]
    for parameter in average.parameters():
        parameter.mul_(0.9)
    save_weights(average, run / "ema.safetensors")
    folder = exported(run, tokenizer, tmp_path / "model", "--weights", "ema.safetensors")
    token_BT = torch.randint(ENTRIES, (2, 10))
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    torch.testing.assert_close(theirs(token_BT).logits, average(token_BT), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"best\.safetensors: cannot be read as weights"):
        exported(run, tokenizer, tmp_path / "other", "--weights", "best.safetensors")


@torch.no_grad()
@pytest.mark.parametrize("shape", ["gpt2", "experts"])
def test_further_heads_are_left_out(
    tmp_path: pathlib.Path,
    tokenizer: pathlib.Path,
    finished: Callable[..., pathlib.Path],
    capsys: pytest.CaptureFixture[str],
    shape: str,
) -> None:
    architecture, changes, ffn = SHAPES[shape]
    run = finished(changes, ffn, {"kind": "multi_token", "heads": 3, "ffn": SHAPES["gpt2"][2]})
    folder = exported(run, tokenizer, tmp_path / "model")
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert type(theirs).__name__ == architecture
    ours, token_BT = load_run(run, ENTRIES)[1], torch.randint(ENTRIES, (2, 10))
    torch.testing.assert_close(theirs(token_BT).logits, ours(token_BT), rtol=1e-4, atol=1e-4)
    parts = sum(parameter.numel() for parameter in ours.parts.parameters())
    assert f"arm seed 0: left out {parts:,} parameters of parts.*, which no next token needs" in capsys.readouterr().err
    plain = sum(parameter.numel() for parameter in ours.parameters()) - parts
    assert f"{plain:,} parameters," in (folder / "README.md").read_text()
    assert not [name for name in theirs.state_dict() if "parts" in name]


@torch.no_grad()
@pytest.mark.parametrize("shape", ["experts", "mamba", "rom", "gsa", "mod", "mixed"])
def test_padding_beams_samples_and_the_loss_are_as_they_should_be(
    tmp_path: pathlib.Path, tokenizer: pathlib.Path, finished: Callable[..., pathlib.Path], shape: str
) -> None:
    folder = exported(finished(*SHAPES[shape][1:]), tokenizer, tmp_path / "model")
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    token_BT = torch.randint(1, ENTRIES, (1, 6))
    settings: dict[str, Any] = {"max_new_tokens": 6, "eos_token_id": None, "pad_token_id": 0}
    alone = theirs.generate(token_BT, do_sample=False, **settings)[:, 6:]
    # in a batch with a longer text it is padded on the left
    other_BT = torch.randint(1, ENTRIES, (1, 9))
    padded_BT = torch.cat([torch.cat([torch.zeros((1, 3), dtype=torch.long), token_BT], dim=1), other_BT])
    mask_BT = torch.ones_like(padded_BT)
    mask_BT[0, :3] = 0
    both = theirs.generate(padded_BT, attention_mask=mask_BT, do_sample=False, **settings)[:, 9:]
    assert torch.equal(both[:1], alone)
    assert torch.equal(both[1:], theirs.generate(other_BT, do_sample=False, **settings)[:, 9:])
    with_cache = theirs.generate(token_BT, num_beams=3, do_sample=False, **settings)
    assert torch.equal(with_cache, theirs.generate(token_BT, num_beams=3, do_sample=False, use_cache=False, **settings))
    torch.manual_seed(1)
    sampled = theirs.generate(token_BT, do_sample=True, top_k=5, **settings)
    assert sampled.shape == (1, 12)
    expected = torch.nn.functional.cross_entropy(theirs(token_BT).logits[0, :-1], token_BT[0, 1:])
    torch.testing.assert_close(theirs(token_BT, labels=token_BT).loss, expected)
    torch.testing.assert_close(theirs(token_BT, logits_to_keep=1).logits, theirs(token_BT).logits[:, -1:])


@torch.no_grad()
def test_a_capacity_is_that_of_one_text_when_it_generates_too(
    tmp_path: pathlib.Path, tokenizer: pathlib.Path, finished: Callable[..., pathlib.Path]
) -> None:
    run = finished({}, {**MOE, "choice": {"kind": "token", "capacity_factor": 1.0}})
    theirs = AutoModelForCausalLM.from_pretrained(exported(run, tokenizer, tmp_path / "model")).eval()
    ours, token_BT = load_run(run, ENTRIES)[1], torch.randint(1, ENTRIES, (2, 10))
    torch.testing.assert_close(theirs(token_BT).logits, ours(token_BT), rtol=1e-4, atol=1e-4)
    for use_cache in (True, False):
        greedy = theirs.generate(token_BT, max_new_tokens=6, do_sample=False, eos_token_id=None, use_cache=use_cache)
        assert torch.equal(greedy[:, 10:], ours(greedy)[:, 9:-1].argmax(-1))


@torch.no_grad()
def test_speculation_which_would_cut_the_cache_is_refused(
    tmp_path: pathlib.Path, tokenizer: pathlib.Path, finished: Callable[..., pathlib.Path]
) -> None:
    folder = exported(finished(*SHAPES["mamba"][1:]), tokenizer, tmp_path / "model")
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        theirs.generate(torch.tensor([[5, 6, 7, 5, 6]]), max_new_tokens=4, prompt_lookup_num_tokens=2)


def test_the_tokenizer_comes_along(
    tmp_path: pathlib.Path, tokenizer: pathlib.Path, finished: Callable[..., pathlib.Path]
) -> None:
    from tokenizers import Tokenizer

    ours = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    for shape in ("gpt2", "llama", "experts"):
        run = finished(*SHAPES[shape][1:])
        theirs = AutoTokenizer.from_pretrained(exported(run, tokenizer, tmp_path / shape))
        assert len(theirs) == ENTRIES
        for text in (*TEXTS[:2], " leading", "naïve — ünïcode\n\t"):
            ids = theirs(text)["input_ids"]
            assert ids == ours.encode(text).ids
            assert theirs.decode(ids) == text
        assert theirs.eos_token == "<|endoftext|>"
        for file in run.iterdir():
            file.unlink()
        run.rmdir()


@torch.no_grad()
def test_a_folder_loads_where_the_package_is_not_installed_and_its_readme_says_how(
    tmp_path: pathlib.Path, tokenizer: pathlib.Path, finished: Callable[..., pathlib.Path]
) -> None:
    from tokenizers import Tokenizer

    shapes = ("gpt2", "llama", "mixtral", "mixtral, tied", "experts", "mixed")
    runs = {shape: finished(*SHAPES[shape][1:], name=shape) for shape in shapes}
    runs["heads"] = finished({}, MOE, {"kind": "multi_token", "heads": 2, "ffn": DENSE}, name="heads")
    folders = {shape: exported(run, tokenizer, tmp_path / f"{shape} model") for shape, run in runs.items()}
    token_BT, settings = torch.randint(1, ENTRIES, (2, 4)), {"max_new_tokens": 20, "do_sample": False}
    (tmp_path / "alone").mkdir()
    alone = load_alone(list(folders.values()), token_BT, settings, tmp_path / "alone")
    ids = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode(TEXT).ids
    for shape, folder in folders.items():
        architecture = SHAPES[shape][0] if shape in SHAPES else "SpeciateForCausalLM"
        custom, found = architecture == "SpeciateForCausalLM", alone[str(folder)]
        assert (found["class"], found["ids"]) == (architecture, ids)
        assert found["module"].startswith("transformers_modules." if custom else "transformers.models.")
        torch.testing.assert_close(found["logits"], load_run(runs[shape], ENTRIES)[1](token_BT), rtol=1e-5, atol=1e-5)
        theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
        assert torch.equal(found["generated"], theirs.generate(token_BT, **settings))
        assert bool(list(folder.glob("*.py"))) == custom
        readme = (folder / "README.md").read_text()
        assert ("one of transformers' own classes" in readme) == (not custom)
        call = f'AutoModelForCausalLM.from_pretrained("{folder.name}"{", trust_remote_code=True" if custom else ""})'
        assert call in readme


@torch.no_grad()
def test_the_readme_is_true_code(
    tmp_path: pathlib.Path,
    tokenizer: pathlib.Path,
    finished: Callable[..., pathlib.Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exported(finished(*SHAPES["llama"][1:]), tokenizer, tmp_path / "model")
    code = re.search(r"```python\n(.*?)```", (tmp_path / "model" / "README.md").read_text(), re.DOTALL)
    assert code
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    exec(code[1], namespace)  # noqa: S102 - the README's own code
    assert type(namespace["model"]).__name__ == "LlamaForCausalLM"
    assert len(namespace["tokenizer"]) == ENTRIES


def test_the_readme_says_what_the_model_was_trained_on(
    tmp_path: pathlib.Path, tokenizer: pathlib.Path, finished: Callable[..., pathlib.Path]
) -> None:
    home = tmp_path / "results" / "routers"
    run = home / "runs" / "arm" / "seed0"
    run.parent.mkdir(parents=True)
    separate = {"separate_documents": True, "block": {"depth": MOD}}
    shutil.move(finished(separate, {**MOE, "top_k": 1}), run)
    (tmp_path / "results" / "data" / "mixture").mkdir(parents=True)
    (home / "specs").mkdir()
    places = {"mixture": "data/mixture", "tokenizer": "data/tokenizer", "starts": {}}
    (home / "specs" / "folders.json").write_text(json.dumps(places))
    mixture = {"domains": ["code", "prose"], "labels": ["code", "prose"], "block_length": CONTEXT}
    mixture |= {"vocabulary": ENTRIES, "end_of_text": 0, "tokenizer_fingerprint": "f" * 64, "packs": {}}
    mixture |= {"train_blocks": {"code": 4120, "prose": 7}, "epochs": {}, "held_out_blocks": {}, "available_blocks": {}}
    mixture_file = tmp_path / "results" / "data" / "mixture" / "mixture.json"
    mixture_file.write_text(json.dumps({**mixture, "imbalance": 1.0, "warnings": []}))
    readme = (exported(run, tokenizer, tmp_path / "model") / "README.md").read_text()
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", readme, re.MULTILINE))

    def digest(file: pathlib.Path) -> str:
        return hashlib.sha256(file.read_bytes()).hexdigest()

    assert rows["study"] == "`routers`"
    assert rows["arm and seed"] == "`arm`, 0"
    assert rows["length"] == f"250 steps of 16 blocks of {CONTEXT} tokens: 96,000 tokens"
    assert rows["text"] == "`code` (4,120 blocks), `prose` (7 blocks)"
    assert rows["data"] == f"sha256 of mixture.json: `{digest(mixture_file)}`"
    assert rows["tokenizer"] == f"`bpe`, {ENTRIES} ids; sha256: `{digest(tokenizer / 'tokenizer.json')}`"
    assert rows["spec"] == f"sha256 of spec.json: `{digest(run / 'spec.json')}`"
    assert rows["weights"] == f"sha256 of model.safetensors: `{digest(run / 'model.safetensors')}`"
    limits = readme.split("## Limits")[1]
    assert f"at most {CONTEXT} tokens" in limits
    assert "one document in each sequence" in limits
    # data that were made again since the run are not what it was trained on
    (run / "run.json").write_text(json.dumps({"data": {"mixture.json": "0" * 64, "train.npy": "1" * 64}}))
    again = (exported(run, tokenizer, tmp_path / "again") / "README.md").read_text()
    assert f"| data | sha256 of mixture.json: `{'0' * 64}`, sha256 of train.npy: `{'1' * 64}` |" in again
    assert "| study | `routers` |" in again and "| text | unknown |" in again and "4,120" not in again
    (run / "run.json").write_text(json.dumps({"state": "failed", "reason": "step 7: the loss is not finite"}))
    failed = (exported(run, tokenizer, tmp_path / "failed") / "README.md").read_text()
    assert "| failed | step 7: the loss is not finite |" in failed and "| failed |" not in again
    (run / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json: is not a run\.json: "):
        exported(run, tokenizer, tmp_path / "damaged")
    (run / "run.json").unlink()
    shutil.move(run, tmp_path / "moved")
    elsewhere = (exported(tmp_path / "moved", tokenizer, tmp_path / "other") / "README.md").read_text()
    assert "| study | unknown: moved is in no study's results |" in elsewhere
    assert f"`{digest(tmp_path / 'moved' / 'spec.json')}`" in elsewhere


def test_code_that_computes_something_else_is_never_exported(
    tmp_path: pathlib.Path,
    tokenizer: pathlib.Path,
    finished: Callable[..., pathlib.Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, write_code = finished({}, MOE), auto_classes.write_code

    def write_other(folder: pathlib.Path, model: ModelSpec) -> None:
        write_code(folder, model)
        file = folder / "speciate_model_block.py"
        file.write_text(file.read_text().replace("x_BTD + self.ffn(", "x_BTD - self.ffn("))

    monkeypatch.setattr(auto_classes, "write_code", write_other)
    with pytest.raises(ValueError, match=r"the exported logits differ from the run's by .*; nothing is exported"):
        exported(run, tokenizer, tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_what_cannot_be_exported_is_refused(
    tmp_path: pathlib.Path, tokenizer: pathlib.Path, finished: Callable[..., pathlib.Path]
) -> None:
    run = finished({}, MOE)
    spec, model = load_run(run, ENTRIES)
    seeing = spec.model_copy(update={"model": spec.model.model_copy(update={"causal": False})})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "load_run", lambda *given: (seeing, model))
        with pytest.raises(ValueError, match=r"sees the whole block .causal: false. .* it cannot be exported"):
            exported(run, tokenizer, tmp_path / "masked")
    published = {"kind": "published", "k": 4, "k_min": 2, "k_max": 8, "non_causal": True}
    for name, ahead in {
        "expert": {"ffn": {**MOE, "choice": {"kind": "expert", "non_causal": True}}},
        "published": {"mixer": {**GSA, "budget": published}},
    }.items():
        other = finished({"block": ahead}, MOE, name=name)
        with pytest.raises(ValueError, match=rf"{name}: {name} looks at later tokens .*; it cannot be exported"):
            exported(other, tokenizer, tmp_path / "ahead")
        shutil.rmtree(other)
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="there: exists already; remove it or give another --output"):
        exported(run, tokenizer, tmp_path / "there")
    (run / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"model.safetensors: cannot be read as weights"):
        exported(run, tokenizer, tmp_path / "model")
    (run / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no model\.safetensors; the run has not finished"):
        exported(run, tokenizer, tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "there"]
