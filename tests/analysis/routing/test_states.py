"""Test the state of a layer from its numbers, and the sentences that say it."""

import math
from typing import Any

import numpy as np
import pytest

from speciate.analysis.routing import sentences
from speciate.analysis.routing.pooled import PooledNull
from speciate.analysis.routing.states import Finding, find_state, material_bits

NAN = math.nan
SPECIALISED: dict[str, Any] = {
    "path": "layers.3.gate",
    "layer": 3,
    "phase": "",
    "num_slots": 8,
    "num_chosen": 1.0,
    "documents": 50,
    "max_expert": 2,
    "max_share": 0.2,
    "max_share_low": 0.18,
    "max_share_high": 0.22,
    "max_share_limit": 0.5,
    "max_vio": 0.6,
    "effective_experts": 7.5,
    "effective_experts_high": 7.6,
    "effective_experts_limit": 4.0,
    "dead_experts": 0,
    "information_bits": 0.32,
    "excess_bits": 0.3,
    "excess_low_bits": 0.25,
    "excess_high_bits": 0.35,
    "p_value": 0.001,
    "q_value": 0.001,
    "token_explained_bits": 0.1,
    "beyond_token_bits": 0.15,
    "beyond_token_q": 0.001,
    "shadow_bits": 0.02,
    "shadow_high_bits": 0.05,
    "beyond_shadow_q": 0.001,
}
WEAK = {"excess_bits": 0.02, "excess_low_bits": -0.05, "excess_high_bits": 0.09, "q_value": 0.4}


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [
        ({}, "specialised", ""),
        ({"max_share": 0.7, "max_share_low": 0.6}, "collapsed", ""),
        ({"effective_experts": 3.0, "effective_experts_high": 3.5}, "collapsed", ""),
        ({"max_share": 0.55, "max_share_low": 0.4}, "undecided", "load"),
        ({"effective_experts": 3.8, "effective_experts_high": 4.2}, "undecided", "load"),
        ({"max_share": 0.7, "max_share_low": NAN}, "collapsed", ""),
        ({"p_value": NAN}, "undecided", "untested"),
        (WEAK, "undecided", "text"),
        ({**WEAK, "excess_high_bits": 0.03}, "indifferent", ""),
        # sure to depend on the label, and by too little to matter: of 1.58 bits, .03 are
        ({"excess_bits": 0.02, "excess_low_bits": 0.015, "excess_high_bits": 0.025}, "indifferent", ""),
        ({"beyond_token_q": 0.5, "token_explained_bits": 0.28}, "token", ""),
        ({"beyond_token_q": 0.5, "token_explained_bits": 0.05}, "undecided", "tokens"),
        ({"beyond_token_q": NAN, "token_explained_bits": NAN}, "telling", "tokens"),
        ({"beyond_shadow_q": 0.5, "shadow_bits": 0.2}, "untrained", ""),
        ({"beyond_shadow_q": 0.2}, "undecided", "shadows"),
        ({"beyond_shadow_q": NAN}, "telling", "shadows"),
        ({"beyond_shadow_q": NAN, "beyond_token_q": NAN}, "telling", "shadows tokens"),
        # tokens explain it, whatever untrained routers would do
        ({"beyond_shadow_q": NAN, "beyond_token_q": 0.5, "token_explained_bits": 0.28}, "token", ""),
    ],
)
def test_states(changes: dict[str, float], state: str, reason: str) -> None:
    row = SPECIALISED | changes
    found = find_state(row, num_labels=3, level=0.05)
    assert (found.state, found.reason) == (state, reason)
    text = sentences.verdict_sentence("Layer 3", row, found, top=None, unit="documents")
    assert text.startswith("Layer 3 ") and "nan" not in text
    assert "20.0 %" in text or "55.0 %" in text or "70.0 %" in text  # the load is always said


def test_without_labels_a_layer_is_unlabelled() -> None:
    assert find_state(SPECIALISED, num_labels=1, level=0.05).state == "unlabelled"


def test_how_many_documents_would_settle_a_state() -> None:
    # half the interval is .07; what matters is .0317, and .02 are far enough from 0: (.07 / .02)^2 times 50 documents
    found = find_state(SPECIALISED | WEAK, num_labels=3, level=0.05)
    assert material_bits(3, 8, 1) == pytest.approx(0.02 * math.log2(3))
    assert found.documents_needed == math.ceil(50 * (0.07 / 0.02) ** 2)
    # the share is .05 above its limit, and its lower bound .15 below it
    of_load = find_state(SPECIALISED | {"max_share": 0.55, "max_share_low": 0.4}, num_labels=3, level=0.05)
    assert of_load.documents_needed == pytest.approx(50 * 9, abs=1)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["specialised"], "Layer 0 has not collapsed. Layer 0 is specialised."),
        (["collapsed"], "Layer 0 has collapsed."),
        (["unlabelled"], "Layer 0 has not collapsed. Without labels, nothing can be said of specialisation."),
        (["token"] * 3, "None of 3 layers has collapsed. All 3 layers follow the identity of the tokens."),
        (
            ["specialised", "collapsed", "specialised"],
            "1 of 3 layers has collapsed (layer 1); 2 of 3 layers are specialised (layer 0, layer 2).",
        ),
        (
            ["load", "specialised"],
            "1 of 2 layers is specialised (layer 1); 1 of 2 layers may have collapsed (layer 0).",
        ),
        (["untested"] * 2, "None of 2 layers has collapsed. All 2 layers cannot be tested for specialisation."),
    ],
)
def test_headlines(found: list[str], expected: str) -> None:
    findings = [Finding("undecided", state) if state in ("load", "untested") else Finding(state) for state in found]
    text = sentences.headline([(f"Layer {place}", finding) for place, finding in enumerate(findings)])
    assert text.removeprefix("No layer of 2 is shown to have collapsed. ") == expected


@pytest.mark.parametrize(
    ("share", "text"), [(0.5, "50.0 %"), (0.0123, "1.2 %"), (0.00123, "0.12 %"), (0.0, "0.0 %"), (1.0, "100.0 %")]
)
def test_percentages(share: float, text: str) -> None:
    assert sentences.percent(share) == text


def test_tests_in_blocks_are_the_tests_at_once() -> None:
    draw = np.random.default_rng(0)
    drawn_BT = np.abs(draw.standard_normal((20, 9000)))
    observed_T = np.abs(draw.standard_normal(9000))
    at_once, in_blocks = PooledNull(), PooledNull()
    for null in (at_once, in_blocks):
        null.skip(1)
    at_once.add(observed_T, drawn_BT)
    in_blocks.add_in_blocks(observed_T, lambda block: drawn_BT[:, block])
    (_, one), (_, other) = at_once.p_values(), in_blocks.p_values()
    assert one.tolist() == other.tolist()
