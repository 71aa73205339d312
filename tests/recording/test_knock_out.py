"""Test knocking experts out: against a router masked by hand, and against this package's own interventions."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.recording.families import LetterTokenizer
from tests.recording.tiny import tiny_config, tiny_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from speciate.recording.knock_out import EXPERT_COLUMNS, LAYER_COLUMNS, knock_out, lifts, within_budget
from speciate.recording.record_model import record_model
from speciate.recording.rerouting.changed_runs import ChangedRuns
from speciate.recording.rerouting.losses import spearman
from speciate.recording.sites import find_sites
from speciate.recording.text_batches import batches
from speciate.selection.text import Text

TEXTS = [
    Text(f"{label} {number}", letters[number:] + letters[: number + 3], label)
    for label, letters in (("vowels", "aeiouaeiouy"), ("others", "bcdfghjklmn"))
    for number in range(3)
]


def by_hand(model: Any, texts: list[Text], path: str = "", gone: Any = None) -> dict[str, float]:
    """Return the mean NLL of each label's texts, a text at a time, with logits of one Mixtral router at -inf."""
    sums: dict[str, list[float]] = {}
    for text in texts:
        ids = torch.tensor([LetterTokenizer().encode(text.text)])
        handles = []
        if path:
            gate = model.get_submodule(path)

            def masked(module: Any, args: Any, output: Any, name: str = text.document) -> Any:
                logits = output[0].masked_fill(gone[name], -torch.inf)
                weights, indices = logits.softmax(-1).topk(module.top_k, dim=-1)
                return logits, weights / weights.sum(-1, keepdim=True), indices

            handles = [gate.register_forward_hook(masked)]
        with torch.no_grad():
            logp = model(ids, use_cache=False).logits[0, :-1].log_softmax(-1)
        for handle in handles:
            handle.remove()
        sums.setdefault(text.label, []).extend((-logp[torch.arange(len(logp)), ids[0, 1:]]).tolist())
    return {label: float(np.mean(values)) for label, values in sums.items()}


def made(budget: int = 60) -> tuple[Any, Any]:
    model = tiny_model("mixtral")
    record = record_model(model, LetterTokenizer(), TEXTS, block_length=16, batch_size=3)
    return model, knock_out(model, LetterTokenizer(), TEXTS, record, budget=budget, block_length=16, batch_size=3)


def test_the_cost_is_that_of_a_router_masked_by_hand() -> None:
    model, out = made()
    base = by_hand(model, TEXTS)
    assert list(out.experts) == list(EXPERT_COLUMNS)
    assert list(out.layers) == list(LAYER_COLUMNS)
    for row in out.experts[out.experts["label"] != ""].itertuples():
        gone = {text.document: torch.arange(8) == row.expert for text in TEXTS}
        expected = by_hand(model, TEXTS, row.path, gone)[row.label] - base[row.label]
        assert row.cost_nats == pytest.approx(expected, abs=2e-5)
        assert row.cost_low_nats <= row.cost_nats <= row.cost_high_nats


def test_the_cost_of_all_texts_is_the_mean_over_their_tokens() -> None:
    _, out = made()
    for _, rows in out.experts.groupby(["path", "expert"]):
        whole, parts = rows[rows["label"] == ""], rows[rows["label"] != ""]
        assert whole["tokens"].item() == parts["tokens"].sum() == sum(len(text.text) - 1 for text in TEXTS)
        mean = np.average(parts["cost_nats"], weights=parts["tokens"])
        assert whole["cost_nats"].item() == pytest.approx(mean, abs=1e-9)


def test_the_experts_with_the_largest_lift_times_load_come_first_and_the_budget_is_kept() -> None:
    model = tiny_model("mixtral")
    record = record_model(model, LetterTokenizer(), TEXTS, block_length=16, batch_size=3)
    promise = {}
    for selector in record.selectors:
        chosen_GS = selector.tally.chosen_GS
        share = {
            label: chosen_GS[(record.documents["label"] == label).to_numpy()].sum(0) for label in ("vowels", "others")
        }
        share = {label: value / value.sum() for label, value in share.items()}
        mean = sum(share.values()) / 2
        load = chosen_GS.sum(0) / chosen_GS.sum()
        for expert in range(8):
            if load[expert]:
                promise[selector.path, expert] = (
                    max(value[expert] for value in share.values()) / mean[expert] * load[expert]
                )
    first = sorted(promise, key=lambda key: -promise[key])[:2]
    # two batches: 2 as it is, 2 more for each router, 4 for each expert
    routers = len({path for path, _ in first})
    for budget, number in ((2 + 2 * routers + 8, 2), (2 + 2 * routers + 7, 1), (8, 1)):
        _, out = made(budget)
        known = list(dict.fromkeys(zip(out.experts["path"], out.experts["expert"], strict=True)))
        assert known == first[:number]
        assert out.passes <= budget
        assert out.left_out == len(promise) - number
    with pytest.raises(ValueError, match=r"--knock-out: 7 forward passes do not reach an expert; .* takes 8"):
        made(7)


def test_a_control_takes_as_many_choices_of_each_rank_from_random_tokens() -> None:
    """The experts' choices without any change are what is left, for all tokens that the control does not meet."""
    model = tiny_model("mixtral")
    parts = list(batches(LetterTokenizer(), TEXTS, block_length=16, batch_size=6))
    runs = ChangedRuns(model, parts, {text.document: row for row, text in enumerate(TEXTS)}, seed=0)
    site = find_sites(model)[0]
    runs.unchanged([site])
    before_NK = runs._slots[site.path][0].long()
    after: list[Tensor] = []
    handles = site.attach(lambda call: after.append(call.slot_NK))  # type: ignore[union-attr, arg-type]
    expert = int(np.bincount(before_NK.flatten()).argmax())
    runs.without_random(site, expert)
    for handle in handles:
        handle.remove()
    real_N = parts[0].mask_BT.flatten().bool()
    row_N = torch.arange(len(real_N)) // parts[0].mask_BT.shape[1]
    lost_NK = torch.stack([~(after[0] == before_NK[:, [rank]]).any(1) for rank in range(before_NK.shape[1])], dim=1)
    had_NK = before_NK == expert
    assert not lost_NK[~real_N].any()
    for row in range(len(TEXTS)):
        here_N = real_N & (row_N == row)
        assert lost_NK[here_N].sum(0).tolist() == had_NK[here_N].sum(0).tolist()
    assert not torch.equal(lost_NK, had_NK)


def test_shuffled_logits_keep_the_load_of_the_layer() -> None:
    model = tiny_model("mixtral")
    parts = list(batches(LetterTokenizer(), TEXTS, block_length=16, batch_size=6))
    runs = ChangedRuns(model, parts, {text.document: row for row, text in enumerate(TEXTS)}, seed=0)
    site = find_sites(model)[0]
    runs.unchanged([site])
    before_NK, real_N = runs._slots[site.path][0].long(), parts[0].mask_BT.flatten().bool()
    after: list[Tensor] = []
    handles = site.attach(lambda call: after.append(call.slot_NK))  # type: ignore[union-attr, arg-type]
    runs.shuffled(site)
    for handle in handles:
        handle.remove()
    counts = [np.bincount(slots[real_N].flatten(), minlength=8).tolist() for slots in (before_NK, after[0])]
    assert counts[0] == counts[1]
    assert not torch.equal(before_NK[real_N], after[0][real_N])


def test_an_expert_that_nobody_needs_costs_nothing_and_one_that_all_need_costs_much() -> None:
    """Plant both: expert 0 writes zeros, so that it adds nothing; the text is learned through expert 1 alone."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config("mixtral", num_hidden_layers=1, num_experts_per_tok=1)).eval()
    experts, gate = model.model.layers[0].mlp.experts, model.model.layers[0].mlp.gate
    ids = [LetterTokenizer().encode(text.text) for text in TEXTS]
    with torch.no_grad():
        experts.down_proj.zero_()
        gate.weight.zero_()
        # the second half of the hidden state tells vowels apart, and their router sends them to expert 1
        vowels = torch.tensor(sorted({letter for text in ids[:3] for letter in text}))
        model.model.embed_tokens.weight.normal_()
        model.model.embed_tokens.weight[:, 0] = -8.0
        model.model.embed_tokens.weight[vowels, 0] = 8.0
        gate.weight[1, 0], gate.weight[0, 0] = 4.0, -4.0
        experts.down_proj[1].normal_()
        experts.gate_up_proj.normal_()
    record = record_model(model, LetterTokenizer(), TEXTS, block_length=16)
    out = knock_out(model, LetterTokenizer(), TEXTS, record, budget=40, block_length=16)
    cost = out.experts.set_index(["expert", "label"])["cost_nats"]
    assert cost[0, "others"] == 0
    assert cost[0, "vowels"] == 0
    assert abs(cost[1, "vowels"]) > 0.01
    assert out.experts.set_index(["expert", "label"])["lift"][1, "vowels"] == pytest.approx(2, rel=0.2)


def test_lifts_and_correlations_by_hand() -> None:
    chosen_GS = np.array([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0]])
    label_G = np.array(["a", "b", "b"], dtype=object)
    np.testing.assert_allclose(
        lifts(chosen_GS, label_G, ["a", "b"]), [[0.75 / 0.5625, 0.25 / 0.4375], [0.375 / 0.5625, 0.625 / 0.4375]]
    )
    assert spearman(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(0.8)
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([0.0, 0.0, 5.0])) == pytest.approx(1)
    assert np.isnan(spearman(np.array([1.0, 1.0, 1.0]), np.array([0.0, 1.0, 2.0])))
    assert within_budget([], 3, 100) == []
