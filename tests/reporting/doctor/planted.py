"""A record with four planted routers, and a Judgement of it, made here so that the page can be tested by itself."""

import numpy as np
import pandas as pd

from speciate.analysis.routing.judgement import Judgement, Verdict
from speciate.selection.record_builder import RecordBuilder, SelectorShape
from speciate.selection.routing_record import Note, RoutingRecord

LABELS = ("code", "math", "</script><b>prose</b>")
STATES = ("collapsed", "specialised", "token", "indifferent")
WORDS = (" the", " sum", "def", " of", "\n", " x", "</script>", "\u2028", "\0", "\u202e")
NUM_EXPERTS, NUM_CHOSEN, LENGTH = 8, 2, 120


def record(source: str = "models/</script>tiny", seed: int = 0, num_documents: int = 12) -> RoutingRecord:
    rng = np.random.default_rng(seed)
    builder = RecordBuilder(source)
    builder.add_note("order_lost", "The file <trace> does not keep the order of the k experts.")
    builder.pieces = dict(enumerate(WORDS))
    for index in range(num_documents):
        label = index % len(LABELS)
        row = builder.row(f"doc{index} <i>", label=LABELS[label])
        token_N = np.random.default_rng(index).integers(0, len(WORDS), LENGTH)
        any_N = rng.integers(0, NUM_EXPERTS, LENGTH)
        first = (np.where(rng.random(LENGTH) < 0.9, 0, any_N), np.where(any_N < 5, label, any_N), token_N % 8, any_N)
        for layer, first_N in enumerate(first):
            second_N = (first_N + 1 + rng.integers(0, NUM_EXPERTS - 1, LENGTH)) % NUM_EXPERTS
            weight_N = 0.5 + rng.random(LENGTH) / 2
            builder.add(
                SelectorShape(f"model.layers.{layer}.mlp.gate", layer, NUM_EXPERTS, NUM_CHOSEN),
                np.full(LENGTH, row),
                np.stack([first_N, second_N], axis=1),
                token_N=token_N,
                weight_NK=np.stack([weight_N, 1 - weight_N], axis=1),
                margin_N=rng.random(LENGTH),
            )
    return builder.build()


def judgement(of: RoutingRecord, against: str = "") -> Judgement:
    rng = np.random.default_rng(1)
    layers, experts, lifts, pairs = [], [], [], []
    for place, selector in enumerate(of.selectors):
        share_S = selector.tally.chosen_GS.sum(0) / selector.tally.chosen_GS.sum()
        named = {"path": selector.path, "layer": selector.layer, "phase": ""}
        largest = float(share_S.max())
        layers.append(
            named
            | {"num_slots": NUM_EXPERTS, "num_chosen": NUM_CHOSEN, "decisions": selector.tally.decisions_G.sum()}
            | {"units": 12, "max_share": largest, "max_share_low": largest - 0.02, "max_share_high": largest + 0.02}
            | {"max_share_limit": 0.3, "max_vio": NUM_EXPERTS * largest - 1, "noise_floor": 0.12, "dead_experts": 0}
            | {"dead_share_high": 0.002, "drift_nats": 0.3, "information_nats": 0.1 * place, "null_mean_bits": 0.01}
            | {"null_high_bits": 0.02, "excess_bits": 0.1 * place, "excess_low_bits": 0.08 * place}
            | {"excess_high_bits": 0.13 * place, "q_value": 0.01 if place in (1, 2) else 0.6, "shadow_bits": 0.01}
            | {"token_explained_bits": 0.02 * place, "state": STATES[place], "sentence": f"Layer {place} <so>."}
        )
        for slot in range(NUM_EXPERTS):
            experts.append(
                named
                | {"expert": slot, "share": share_S[slot], "share_low": share_S[slot] * 0.9, "is_dead": False}
                | {"share_high": share_S[slot] * 1.1, "removable": slot == 7 and place == 0}
            )
            for number, label in enumerate(LABELS):
                own = place == 1 and slot == number
                lifts.append(
                    named
                    | {"expert": slot, "label": label, "share": 0.1, "lift": 2.5 if own else 0.9, "lift_low": 0.8}
                    | {"lift_high": 2.7, "p_value": 0.001, "q_value": 0.002 if own else 0.7, "token_lift": 1.1}
                    | {"shadow_lift": 1.2, "placebo_lift": 1 + 0.1 * rng.standard_normal()}
                )
            for other in range(slot):
                expected = 20.0 + slot
                pairs.append(
                    named
                    | {"expert": other, "other": slot, "together": 60 if slot == 3 else int(expected)}
                    | {"expected": expected, "ratio": 1.0, "q_value": 0.001 if slot == 3 else 0.9}
                )
    tables = {
        name: pd.DataFrame(rows)
        for name, rows in zip(("layers", "experts", "lifts", "pairs"), (layers, experts, lifts, pairs), strict=True)
    }
    if against:
        tables["agreement"] = pd.DataFrame(
            [
                {"path": selector.path, "layer": selector.layer, "same_first": 0.7, "overlap": 0.8, "kappa": 0.6}
                | {"divergence_bits": 0.03, "divergence_low": 0.02, "divergence_high": 0.05, "null_bits": 0.01}
                | {"moved_expert": 3, "moved_share": 0.02}
                for selector in of.selectors
            ]
        )
        tables["flips"] = pd.DataFrame(
            [
                {
                    "path": selector.path,
                    "layer": selector.layer,
                    "margin": margin,
                    "tokens": 100,
                    "flipped": 0.3 - margin / 4,
                }
                for selector in of.selectors
                for margin in (0.25, 0.5, 1.0)
            ]
        )
    return Judgement(
        source=of.source,
        against=against,
        headline="One of four layers has collapsed, and one <b>specialises</b>.",
        verdicts=tuple(Verdict(row["path"], row["layer"], "", row["state"], row["sentence"]) for row in layers),
        tables=tables,
        unsaid=(Note("probabilities", "The record has no probabilities, so drift & information are unknown."),),
        notes=of.notes,
        facts={"num_tokens": 1440, "num_documents": 12, "confidence": 0.95, "seed": 0},
    )


def knock_out(of: RoutingRecord) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    return pd.DataFrame(
        [
            {"path": selector.path, "layer": selector.layer, "expert": slot, "label": label, "tokens": 100}
            | {"cost_nats": (cost := float(abs(rng.normal(0, 0.02)))), "cost_low_nats": cost / 2}
            | {"cost_high_nats": cost * 2, "control_nats": 0.003}
            for selector in of.selectors
            for slot in range(NUM_EXPERTS)
            for label in ("", *LABELS)
        ]
    )


def training_logs() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"source": "log.jsonl", "step": step, "layer": layer, "metric": metric, "value": layer + 1 / (1 + step)}
            for metric in ("load_balancing_loss", "max_vio")
            for layer in range(3)
            for step in range(0, 100, 10)
        ]
    )
