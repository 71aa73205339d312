"""Test the playground: greedy text equals the full forward pass, and the table shows what the routers chose."""

import io
import json
import pathlib
import re
import sys
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models

from speciate.cli import execute
from speciate.config.components import kinds_in, options_of
from speciate.config.run import RunSpec, canonical_json
from speciate.config.stage_specs import DataFolders
from speciate.data.tokens.fitted import FittedTokenizer
from speciate.data.tokens.tokenizer import bpe
from speciate.io import sha256
from speciate.selection.selection import record_selections
from speciate.tools import export, generate
from speciate.training.build_model import build_model
from speciate.training.checkpoint.load_run import load_run
from speciate.training.checkpoint.weights import save_weights

TEXTS = ["the cat sat on the mat, and the dog sat on the log", "def f(x):\n    return x + 1\n"] * 20
ENTRIES, CONTEXT = 280, 24
MOE = {"kind": "moe", "num_experts": 4, "hidden": 16, "top_k": 2, "router": "learned", "balance": "none"}
SWIGLU = {"kind": "dense", "hidden": 24, "activation": "swiglu"}


def write_run(results: pathlib.Path, **changes: Any) -> pathlib.Path:
    """Write a study's results with one finished run of random weights; return the run's folder."""
    fitted = FittedTokenizer(bpe.build(bpe.Options(kind="bpe", entries=ENTRIES), iter(TEXTS), None).to_str(), "bpe")
    tokenizer = results / "data" / "fit" / "tokenizer-0"
    tokenizer.mkdir(parents=True)
    for name, content in fitted.files().items():
        (tokenizer / name).write_bytes(content)
    folders = DataFolders(mixture="data/balance/mixture-0", tokenizer="data/fit/tokenizer-0", starts={})
    (results / "study" / "specs").mkdir(parents=True)
    (results / "study" / "specs" / "folders.json").write_text(canonical_json(folders))
    block = {"mixer": {"kind": "attention", "num_heads": 4}, "ffn": changes.pop("ffn", MOE), "depth": "every"}
    model = {"width": 32, "num_layers": 2, "context": CONTEXT, "block": block, "init_std": 0.2, "tied_head": False}
    objective = changes.pop("objective", "causal")
    settings = {"ablation": "arm", "seed": 0, "model": {**model, **changes}}
    run = RunSpec.model_validate({**settings, "objective": objective, "optimizer": "adamw", "schedule": "cosine"})
    folder = results / "study" / "runs" / "arm" / "seed0"
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    (folder / "spec.json").write_text(canonical_json(run))
    save_weights(build_model(run, ENTRIES), folder / "model.safetensors")
    return folder


def printed(capsys: pytest.CaptureFixture[str], verb: Any, *arguments: str) -> str:
    execute([verb.__name__.rpartition(".")[2], *arguments])
    return capsys.readouterr().out


@torch.no_grad()
def test_greedy_text_is_the_full_forwards_and_the_table_the_routers(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "results")
    model = load_run(run, ENTRIES)[1]
    tokenizer = generate.load_tokenizer(tmp_path / "results" / "data" / "fit" / "tokenizer-0")
    ids = tokenizer.encode("the cat").ids
    prompt = len(ids)
    for _ in range(8):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert tokenizer.token_to_id("<|endoftext|>") not in ids
    options = ("--run", str(run), "--prompt", "the cat", "--temperature", "0", "--max-tokens", "8", "--show-experts")
    text, *table = printed(capsys, generate, *options).split("\ntoken  ")
    assert text == tokenizer.decode(ids)
    rows = table[0].splitlines()
    assert rows[0].split() == ["blocks.0.ffn.router", "blocks.1.ffn.router"]
    with record_selections(model) as record:
        model.hidden(torch.tensor([ids]))
    assert len(rows) - 1 == len(ids) > prompt
    for place, row in enumerate(rows[1:]):
        chosen = [
            " ".join(str(slot) for slot in range(4) if selection.chosen_NS[place, slot] > 0)
            for selection in record.values()
        ]
        # a token's text may itself contain spaces, so the row is read from its end
        assert row.split()[-4:] == " ".join(chosen).split()
        assert row.startswith(repr(tokenizer.decode([ids[place]]))[:16])
    assert "\x1b" not in table[0]


def test_an_exported_folder_says_what_the_run_says(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes: dict[str, dict[str, Any]] = {
        "experts": {},
        "llama": {"ffn": SWIGLU, "norm": "rms", "position": "rotary", "biases": False},
    }
    for name, changes in shapes.items():
        run = write_run(tmp_path / name, **changes)
        printed(capsys, export, "--run", str(run), "--output", str(tmp_path / name / "model"))
        options = ("--prompt", "def f", "--max-tokens", "9", "--seed", "4", "--top-k", "30", "--top-p", "0.9")
        told = printed(capsys, generate, "--run", str(run), *options)
        assert told == printed(capsys, generate, "--run", str(tmp_path / name / "model"), *options)
        assert told.startswith("def f")
        assert len(told) > len("def f\n")
        assert told != printed(capsys, generate, "--run", str(run), *options[:-6], "--seed", "5")


def test_speculation_says_the_same_and_how_much_it_spared(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objective = {"kind": "multi_token", "heads": 4}
    run = write_run(tmp_path / "results", objective=objective, ffn={"kind": "dense", "hidden": 24})
    options = ("--run", str(run), "--prompt", "the cat", "--temperature", "0", "--max-tokens", "12")
    told = printed(capsys, generate, *options)
    execute(["generate", *options, "--speculate"])
    out, errors = capsys.readouterr()
    assert out == told
    found = re.search(r"(\d+) of (\d+) drafts accepted \((.*)%\), (.*) tokens a forward pass", errors)
    assert found is not None
    accepted, drafted = int(found[1]), int(found[2])
    assert float(found[3]) == pytest.approx(100 * accepted / drafted, abs=0.06)
    assert float(found[4]) == pytest.approx(12 / (12 - accepted), abs=0.006)
    with pytest.raises(ValueError, match="--speculate: is greedy; give --temperature 0 with it"):
        printed(capsys, generate, "--run", str(run), "--prompt", "a", "--speculate")
    plain = write_run(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"--speculate: .*seed0 has no further heads to draft with"):
        printed(capsys, generate, "--run", str(plain), "--prompt", "a", "--temperature", "0", "--speculate")


def test_it_stops_at_a_full_context_and_begins_a_document_of_no_prompt(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "results")
    options = ("--run", str(run), "--temperature", "0", "--show-experts")
    monkeypatch.setattr(sys, "stdin", io.StringIO("the cat"))
    told = printed(capsys, generate, *options, "--prompt", "-", "--max-tokens", "1000")
    assert len(told.split("\ntoken  ")[1].splitlines()) - 1 == CONTEXT
    assert told.startswith("the cat")
    told = printed(capsys, generate, *options, "--prompt", "", "--max-tokens", "3")
    assert "'<|endoftext|>'" in told


def test_on_a_terminal_experts_have_colours() -> None:
    assert generate.colour_cell("3 1 ", True) == "\x1b[38;5;118m3 1 \x1b[0m"
    assert generate.colour_cell("3 1 ", False) == "3 1 "
    assert generate.colour_cell("-", True) == "-"


def test_what_cannot_be_read_is_refused(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "results")
    with pytest.raises(ValueError, match=r"holds neither a run's spec\.json nor a model's config\.json"):
        printed(capsys, generate, "--run", str(tmp_path), "--prompt", "a")
    with pytest.raises(ValueError, match=r"--prompt: has \d+ tokens, and the model's context is 24"):
        printed(capsys, generate, "--run", str(run), "--prompt", "a b c d e f g " * 9)
    for option, value, message in (
        ("--temperature", "-1", "temperature: must be at least 0, not -1"),
        ("--top-k", "-1", "top_k: must be at least 0, not -1"),
        ("--top-p", "0", "top_p: must be above 0 and at most 1, not 0"),
    ):
        with pytest.raises(ValueError, match=message):
            printed(capsys, generate, "--run", str(run), "--prompt", "a", option, value)
    (tokenizer,) = (tmp_path / "results").glob("data/fit/*/tokenizer.json")
    manifest = tokenizer.with_name("tokenizer_manifest.json")
    before = {file: file.read_text() for file in (tokenizer, manifest)}
    tokenizer.write_text(Tokenizer(models.BPE({"<|endoftext|>": 0, "a": 1}, [])).to_str())
    manifest.write_text(json.dumps({**json.loads(before[manifest]), "fingerprint": sha256(tokenizer)}))
    with pytest.raises(ValueError, match=r"--prompt: the tokenizer has no token for any of its 3 characters"):
        printed(capsys, generate, "--run", str(run), "--prompt", "日本語")
    for file, text in before.items():
        file.write_text(text)
    moved = tmp_path / "elsewhere"
    run.rename(moved)
    with pytest.raises(ValueError, match="is not in results/<study>/runs/arm/seed0, so name the paths"):
        printed(capsys, generate, "--run", str(moved), "--prompt", "a")


DIFFUSION = {"objective": "masked_diffusion", "causal": False, "ffn": SWIGLU}


def test_masks_are_filled_and_the_order_shown(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "results", **DIFFUSION)
    common = ("--run", str(run), "--prompt", "the cat", "--max-tokens", "6")
    out = printed(capsys, generate, *common, "--show-order")
    steps = [line for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [int(line.split()[0]) for line in steps[:6]] == [1, 2, 3, 4, 5, 6]
    assert [line.count("▁") for line in steps[:6]] == [5, 4, 3, 2, 1, 0]
    assert all("the cat" in line for line in steps[:6])
    assert out == printed(capsys, generate, *common, "--show-order")


@pytest.mark.parametrize("sampler", kinds_in("evaluation/sampler"))
def test_every_sampler_fills_all_masks_from_the_command_line(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], sampler: str
) -> None:
    objective = {"kind": "masked_diffusion", "importance": "learned", "masking": "importance"}
    run = write_run(tmp_path / "results", **{**DIFFUSION, "objective": objective})
    steps = ("--steps", "3") if "num_steps" in options_of("evaluation/sampler", sampler).model_fields else ()
    common = ("--run", str(run), "--prompt", "the cat", "--max-tokens", "6", "--sampler", sampler)
    out = printed(capsys, generate, *common, *steps, "--show-order")
    last = [line for line in out.splitlines() if line.strip()[:1].isdigit()][-1]
    assert "the cat" in last
    assert "▁" not in last


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, ["--sampler", "ancestral"], "--sampler: belongs to masked diffusion"),
        ({}, ["--show-order"], "--show-order: belongs to masked diffusion"),
        (DIFFUSION, ["--top-k", "3"], "--top-k: belongs to models that predict from left to right"),
        (DIFFUSION, ["--speculate", "--temperature", "0"], "--speculate: "),
        (DIFFUSION, ["--steps", "0"], "num_steps"),
        (DIFFUSION, ["--sampler", "uncertainty", "--steps", "3"], "--steps: sampler uncertainty has no number of"),
        (DIFFUSION, ["--max-tokens", "0"], "--max-tokens: .* leave no room"),
    ],
)
def test_options_of_another_sort_of_model_are_refused(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], changes: Any, arguments: list[str], message: str
) -> None:
    run = write_run(tmp_path / "results", **changes)
    with pytest.raises(ValueError, match=message):
        printed(capsys, generate, "--run", str(run), "--prompt", "the cat", *arguments)
