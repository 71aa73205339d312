"""Test `speciate doctor` from its command line: planted truths, models, traces, logs, and what is refused.

The planted model is a tiny Mixtral whose four routers are forced: to one expert, by the text's label, by the token, and
by nothing. Everything that the doctor says of it is known beforehand.
"""

import json
import os
import pathlib
import subprocess
import sys
import types
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.data.fetch.sources.hub_server import Repo, serve
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast

from speciate.analysis.routing.judge import judge
from speciate.analysis.routing.settings import JudgeSettings
from speciate.cli import execute
from speciate.recording import load_model
from speciate.recording.load_model import LoadedModel
from speciate.recording.record_model import record_model
from speciate.selection.text import Text

SOURCE = pathlib.Path(__file__).parents[2] / "src"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = {letter: number for number, letter in enumerate(LETTERS)} | {"<pad>": 26}
LABELS = ("east", "north", "west")
NUM_EXPERTS, NUM_TEXTS, LENGTH = 4, 90, 120
RULES = ("one", "label", "token", "nothing")


def tokenizer() -> PreTrainedTokenizerFast:
    fast = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<pad>"))
    fast.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=fast, pad_token="<pad>")


def make_texts(seed: int) -> list[dict[str, str]]:
    """Return texts whose labels prefer other letters, all of which each label has."""
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(NUM_TEXTS):
        label = number % len(LABELS)
        weights = np.where(np.arange(len(LETTERS)) % len(LABELS) == label, 3.0, 1.0)
        letters = draw.choice(list(LETTERS), LENGTH, p=weights / weights.sum())
        rows.append({"id": f"text{number}", "text": "".join(letters), "domain": LABELS[label]})
    return rows


def write_texts(folder: pathlib.Path) -> pathlib.Path:
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in make_texts(3)))
    return file


class ForcedRouter(nn.Module):
    """Return what Mixtral's router does, from logits that a rule makes of token and label."""

    def __init__(self, router: nn.Module, rule: str, seen: types.SimpleNamespace) -> None:
        super().__init__()
        self.top_k, self.num_experts, self.hidden_dim = 1, NUM_EXPERTS, router.hidden_dim
        self.weight = router.weight
        self.rule, self.seen = rule, seen

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        token_BT, label_B = self.seen.token_BT, self.seen.label_B
        draw = torch.Generator().manual_seed(int(token_BT.sum()))
        logits_NE = torch.randn((token_BT.numel(), NUM_EXPERTS), generator=draw)
        place_N = {
            "one": torch.zeros(token_BT.numel(), dtype=torch.long),
            "label": label_B.repeat_interleave(token_BT.shape[1]),
            "token": token_BT.flatten() % len(LABELS),
            "nothing": None,
        }[self.rule]
        if place_N is not None:
            strength = {"one": 20.0, "label": 1.0, "token": 20.0}[self.rule]
            logits_NE[torch.arange(len(logits_NE)), place_N] += strength
        scores_NK, index_NK = torch.softmax(logits_NE, dim=-1).topk(1, dim=-1)
        return logits_NE, torch.ones_like(scores_NK), index_NK


def tiny_mixtral(num_layers: int) -> MixtralForCausalLM:
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        intermediate_size=8,
        num_hidden_layers=num_layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=NUM_EXPERTS,
        num_experts_per_tok=1,
        max_position_embeddings=128,
        pad_token_id=26,
        bos_token_id=None,
        eos_token_id=None,
    )
    return MixtralForCausalLM(config).eval()


def planted(rules: tuple[str, ...]) -> MixtralForCausalLM:
    model, seen = tiny_mixtral(len(rules)), types.SimpleNamespace()

    def note(module: nn.Module, args: Any, arguments: dict[str, Any]) -> None:
        seen.token_BT = arguments["input_ids"]
        # the label whose letters are the most frequent, as the texts were made
        of_label_BTD = torch.nn.functional.one_hot(seen.token_BT % len(LABELS), len(LABELS))
        known_BT1 = (seen.token_BT < len(LETTERS))[..., None]
        seen.label_B = (of_label_BTD * known_BT1).sum(dim=1).argmax(dim=-1)

    model.register_forward_pre_hook(note, with_kwargs=True)
    for layer, rule in zip(model.model.layers, rules, strict=True):
        layer.mlp.gate = ForcedRouter(layer.mlp.gate, rule, seen)
    return model


def run(*words: object) -> None:
    execute(["doctor", *map(str, words)])


def verdict(folder: pathlib.Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "verdict.json").read_text())
    return result


def test_planted_truths_are_told(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, folder = write_texts(tmp_path), tmp_path / "page"
    model = planted(RULES)
    # a router that a test forces is no module of transformers' own
    monkeypatch.setattr(load_model, "load_model", lambda name, **options: LoadedModel(model, tokenizer(), "planted"))
    (tmp_path / "config.json").write_text("{}")
    words = ("--texts", texts, "--label", "domain", "--id", "id", "--output", folder)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, *words, "--fail-on", "collapsed")
    assert stopped.value.code == 3
    found = verdict(folder)
    assert [layer["state"] for layer in found["layers"]] == ["collapsed", "specialised", "token", "indifferent"]
    assert found["states"]["collapsed"] == 1
    assert found["layers"][0]["max_share"] == 1
    assert found["layers"][0]["dead_experts"] == NUM_EXPERTS - 1
    # counted by hand from the file, without the package
    rows = [json.loads(line) for line in texts.read_text().splitlines()]
    third = np.mean([VOCABULARY[letter] % len(LABELS) == 0 for row in rows for letter in row["text"]])
    experts = pd.read_csv(folder / "tables" / "experts.csv")
    share = experts[(experts["layer"] == 2) & (experts["expert"] == 0)]["share"].item()
    assert share == pytest.approx(third, abs=1e-9)
    run(tmp_path, *words, "--fail-on", "undecided")


def states_of_planted(seed: int) -> list[str]:
    """Return the states of the four planted layers, on other texts and with other shadows for each seed."""
    texts = [Text(row["id"], row["text"], row["domain"]) for row in make_texts(seed)]
    record = record_model(planted(RULES), tokenizer(), texts, shadows=4, seed=seed)
    return [verdict.state for verdict in judge(record, JudgeSettings(199, 199, seed=seed)).verdicts]


@pytest.mark.slow
def test_planted_truths_are_told_at_the_stated_rates_over_200_seeds() -> None:
    """The level is 5 %: of 200 seeds, at most 17 may err (the upper end of 99 % of a binomial)."""
    found = [states_of_planted(seed) for seed in range(200)]
    collapsed, label, token, nothing = zip(*found, strict=True)
    assert set(collapsed) == {"collapsed"}
    assert label.count("specialised") >= 183
    assert token.count("specialised") + token.count("untrained") <= 17
    assert sum(state in ("specialised", "token", "untrained", "telling") for state in nothing) <= 17


def test_a_model_in_a_folder_has_a_page_and_can_be_compared(tmp_path: pathlib.Path) -> None:
    texts, model = write_texts(tmp_path), tiny_mixtral(2)
    for name in ("before", "after"):
        model.save_pretrained(tmp_path / name)
        tokenizer().save_pretrained(tmp_path / name)
        with torch.no_grad():
            model.model.layers[1].mlp.gate.weight.mul_(-1)
    before, after, folder = tmp_path / "before", tmp_path / "after", tmp_path / "page"
    options = ("--texts", texts, "--label", "domain", "--id", "id", "--draws", 99)
    run(before, *options, "--against", after, "--output", folder, "--record", tmp_path / "trace.parquet")
    agreement = pd.read_csv(folder / "tables" / "agreement.csv").set_index("layer")
    assert agreement.loc[0, "same_first"] == 1
    assert agreement.loc[1, "same_first"] < 0.5
    page = (folder / "doctor.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    # tables of this comparison do not stay beside those of the next record
    run(tmp_path / "trace.parquet", "--draws", 99, "--output", folder)
    assert not (folder / "tables" / "agreement.csv").exists() and (folder / "tables" / "layers.csv").exists()
    # the trace that was written is judged like the model
    run(before, *options, "--shadows", 0, "--output", tmp_path / "model")
    run(tmp_path / "trace.parquet", "--draws", 99, "--output", tmp_path / "trace")
    of_model, of_trace = (verdict(tmp_path / name)["layers"] for name in ("model", "trace"))
    for one, other in zip(of_model, of_trace, strict=True):
        same = ("decisions", "max_share", "effective_experts", "information_bits", "beyond_token_bits", "state")
        assert {name: one[name] for name in same} == {name: other[name] for name in same}


def test_a_model_is_loaded_by_its_id_on_the_hub(tmp_path: pathlib.Path) -> None:
    """In a process of its own, since transformers reads the hub's address when it is imported."""
    texts, folder = write_texts(tmp_path), tmp_path / "page"
    tiny_mixtral(2).save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    files = {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    words = ("--texts", texts, "--label", "domain", "--id", "id", "--draws", 99, "--shadows", 1, "--output", folder)
    command = [sys.executable, "-m", "speciate", "doctor", "me/tiny-moe", *map(str, words)]
    with serve({"models/me/tiny-moe": Repo(files)}) as hub:
        environment = {**os.environ, **hub.environment(tmp_path), "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert verdict(folder)["source"] == "me/tiny-moe"
    assert len(verdict(folder)["layers"]) == 2


def test_two_precisions_of_one_model_differ_where_margins_are_small(tmp_path: pathlib.Path) -> None:
    texts, model, folder = write_texts(tmp_path), tiny_mixtral(2), tmp_path / "page"
    model.save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    options = ("--texts", texts, "--label", "domain", "--id", "id", "--draws", 99, "--shadows", 0, "--output", folder)
    run(tmp_path / "model", *options, "--against", tmp_path / "model", "--against-dtype", "bfloat16")
    agreement = pd.read_csv(folder / "tables" / "agreement.csv")
    assert (agreement["same_first"] < 1).any() and (agreement["same_first"] > 0.9).all()
    flips = pd.read_csv(folder / "tables" / "flips.csv")
    of_layer = flips[flips["layer"] == 1].sort_values("margin")
    assert of_layer["flipped"].iloc[0] > of_layer["flipped"].iloc[-1]


def test_knock_outs_have_tables_and_a_figure(tmp_path: pathlib.Path) -> None:
    texts, model, folder = write_texts(tmp_path), tiny_mixtral(2), tmp_path / "page"
    model.save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    options = ("--texts", texts, "--label", "domain", "--id", "id", "--draws", 99, "--knock-out", 20)
    run(tmp_path / "model", *options, "--output", folder)
    rows = pd.read_parquet(folder / "tables" / "knock_out_experts.parquet")
    assert set(rows["label"]) == {"", *LABELS}
    assert rows["cost_nats"].notna().all()
    assert "without" in (folder / "doctor.html").read_text()


def test_a_budget_that_reaches_no_expert_is_told_before_the_texts_are_read(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = write_texts(tmp_path)
    tiny_mixtral(1).save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="--knock-out: 3 forward passes do not reach an expert"):
        run(tmp_path / "model", "--texts", texts, "--knock-out", 3, "--output", tmp_path / "page")
    assert "reads 90 texts" not in capsys.readouterr().err


def test_a_training_log_alone_is_judged_by_its_loads(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "log.jsonl"
    rows = [{"step": step, "moe_load/max_vio/layer_3": 0.2 if step < 50 else 2.9} for step in range(10, 101, 10)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SystemExit):
        run("--logs", file, "--experts", 4, "--chosen", 1, "--output", tmp_path / "page", "--fail-on", "collapsed")
    found = verdict(tmp_path / "page")
    assert [(layer["layer"], layer["state"], layer["max_vio"]) for layer in found["layers"]] == [(3, "collapsed", 2.9)]
    assert "since step 50" in found["headline"]
    assert found["facts"] == {"num_steps": 100, "num_layers": 1}


def test_a_training_log_without_a_measure_of_load_says_so(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(json.dumps({"step": 1, "load_balancing_loss": 1.0}) + "\n")
    run("--logs", file, "--output", tmp_path / "page")
    found = verdict(tmp_path / "page")
    assert found["headline"] == "The log has no measure that a limit of collapse is known of."
    assert found["facts"] == {"num_steps": 0, "num_layers": 0} and found["layers"] == []
    page = (tmp_path / "page" / "doctor.html").read_text()
    assert found["headline"] in page and "not converted: load_balancing_loss" in page
    assert "nothing in this log measures a load" in page and "Nothing urgent" not in page


@pytest.mark.parametrize(
    ("name", "value", "sizes", "advised"),
    [
        ("rollout/moe/max_vio/max", 2.9, ("--experts", 4, "--chosen", 1), "The worst layer is collapsed."),
        ("rollout/moe/max_vio/max", 2.9, (), "The worst layer is undecided. Give the numbers of experts"),
        ("rollout/moe/max_vio/layer_3", 2.9, (), "Layer 3 is undecided. Give the numbers of experts"),
    ],
)
def test_the_advice_on_a_training_log_is_about_the_log(
    name: str, value: float, sizes: tuple[object, ...], advised: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1, name: value}) + "\n")
    run("--logs", tmp_path / "log.jsonl", *sizes, "--output", tmp_path / "page")
    page = (tmp_path / "page" / "doctor.html").read_text()
    assert advised in page and "more documents" not in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model", "--fail-on", "sick"], "--fail-on: there is no state sick; the states are collapsed, specialised"),
        (["model"], "model: is a model; name the texts that it is to read: --texts"),
        ([], "SOURCE: name a model, a run or the files of a trace"),
        (["counts.csv", "--knock-out", "9"], "--knock-out: needs a model, and counts.csv is a trace"),
        (["counts.csv", "--select", "model"], "--select: 'model' is not of the form COLUMN=VALUE"),
        (["counts.csv", "--draws", "5"], "--draws: must be at least 19"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "counts.csv").write_text("label,layer,expert,count\na,0,0,5\n")
    with pytest.raises(ValueError, match=message):
        run(*words)
