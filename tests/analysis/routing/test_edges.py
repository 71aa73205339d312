"""Test records that lack something: each is judged as far as it goes, and says what it lacks."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tests.analysis.routing.planted import choose, planted_record, router, selectors_of, texts

from speciate.analysis.routing.judge import judge
from speciate.analysis.routing.judgement import STATES, TABLES, Judgement
from speciate.analysis.routing.settings import JudgeSettings
from speciate.analysis.routing.verdict_json import failing, verdict_dict
from speciate.selection.record_builder import RecordBuilder, SelectorShape
from speciate.selection.routing_record import NOT_CHOSEN, RoutingRecord

QUICK = JudgeSettings(permutations=99, resamples=99)


def kinds(judgement: Judgement) -> set[str]:
    return {note.kind for note in judgement.unsaid}


def checked(record: RoutingRecord, settings: JudgeSettings = QUICK) -> Judgement:
    """Judge a record, and check what holds of every judgement."""
    judgement = judge(record, settings)
    assert judgement.headline.endswith(".") and not judgement.headline[0].islower()
    for name, table in judgement.tables.items():
        assert list(table.columns) == list(TABLES[name])
        assert len(table)
    layers = judgement.tables["layers"]
    assert set(layers["state"]) <= set(STATES)
    assert layers["sentence"].str.endswith(".").all() or layers["sentence"].str.endswith(").").all()
    assert not layers["sentence"].str.contains("nan").any()
    for name in ("p_value", "q_value", "beyond_token_q", "beyond_shadow_q", "document_p", "position_p", "type_p"):
        assert layers[name].dropna().between(0, 1).all()
    assert (layers["max_share_low"].dropna() <= layers["max_share"][layers["max_share_low"].notna()] + 1e-9).all()
    # every number that is missing has its sentence
    unsaid = kinds(judgement)
    if layers["max_share_low"].isna().any():
        assert unsaid & {"no_documents", "one_document"}
    if layers["p_value"].isna().any():
        assert unsaid & {"no_labels", "labels_untested"}
    if layers["token_explained_bits"].isna().any():
        assert unsaid & {"no_labels", "no_tokens", "no_token_ids", "labels_untested"}
    if layers["shadow_bits"].isna().any():
        assert unsaid & {"no_labels", "no_shadows", "labels_untested"}
    if layers["commitment_nats"].isna().any():
        assert "no_probabilities" in unsaid
    if "pairs" not in judgement.tables:
        assert unsaid & {"one_choice", "no_tokens"}
    json.dumps(verdict_dict(judgement), allow_nan=False)
    return judgement


def random_record(*, slots: int = 4, k: int = 1, options: dict[str, bool] | None = None, **size: int) -> RoutingRecord:
    draw = np.random.default_rng(0)
    given = texts(draw, **size)
    return selectors_of(given, {"x": choose(draw, np.zeros((len(given.token_N), slots)), k)}, slots, **(options or {}))


def test_two_experts_of_which_one_is_chosen() -> None:
    judgement = checked(random_record(slots=2, documents=8))
    assert judgement.tables["layers"]["state"].item() == "indifferent"


def test_two_experts_of_which_both_are_chosen() -> None:
    judgement = judge(random_record(slots=2, k=2, documents=8), QUICK)
    row = judgement.tables["layers"].iloc[0]
    assert (row["state"], row["max_share"], row["information_bits"]) == ("indifferent", 0.5, 0.0)


def test_a_single_label() -> None:
    judgement = checked(random_record(labels=1, documents=12))
    assert judgement.tables["layers"]["state"].item() == "unlabelled"
    assert "no_labels" in kinds(judgement) and "single label label 0" in str(judgement.unsaid)


def test_no_labels() -> None:
    judgement = checked(random_record(documents=6, options={"labels": False}))
    assert judgement.tables["layers"]["state"].item() == "unlabelled"
    assert "lifts" not in judgement.tables


def test_labels_with_one_document_each() -> None:
    judgement = checked(random_record(labels=6, documents=1, tokens=300))
    row = judgement.tables["layers"].iloc[0]
    assert row["state"] == "undecided" and np.isnan(row["p_value"])
    assert row["max_share_low"] < row["max_share"] < row["max_share_high"]
    assert judgement.tables["lifts"]["lift_low"].isna().all()
    assert "labels_untested" in kinds(judgement)


def test_one_label_with_one_document_beside_others_with_many() -> None:
    draw = np.random.default_rng(0)
    given = texts(draw, documents=10)
    kept = (given.label_N != 2) | (given.document_N == 20)
    fewer = replace(
        given,
        document_N=given.document_N[kept],
        position_N=given.position_N[kept],
        token_N=given.token_N[kept],
        label_D=given.label_D[:21],
    )
    record = selectors_of(fewer, {"x": router("label", draw, fewer)}, 8)
    judgement = checked(record)
    row, lifts = judgement.tables["layers"].iloc[0], judgement.tables["lifts"]
    assert row["p_value"] == 0.01 and row["units"] >= 16
    untested = lifts["label"] == "label 2"
    assert lifts.loc[untested, "q_value"].isna().all() and lifts.loc[~untested, "q_value"].notna().all()
    assert "label 2 differ" in next(note.text for note in judgement.unsaid if note.kind == "labels_untested")


def test_forty_labels() -> None:
    judgement = checked(random_record(labels=40, documents=5, tokens=60))
    assert len(judgement.tables["lifts"]) == 160
    assert judgement.tables["layers"]["state"].item() in {"indifferent", "undecided"}


def test_two_documents_are_too_few_to_tell() -> None:
    draw = np.random.default_rng(0)
    given = texts(draw, labels=2, documents=2, tokens=100)
    judgement = checked(selectors_of(given, {"x": router("label", draw, given)}, 8))
    row = judgement.tables["layers"].iloc[0]
    # of four documents there are three ways to pair them: p cannot be small
    assert row["p_value"] > 0.2 and row["state"] == "undecided" and row["documents_needed"] >= 5
    assert "would settle it" in row["sentence"]
    assert not (judgement.tables["lifts"]["q_value"] <= 0.05).any()


def test_one_document() -> None:
    judgement = checked(random_record(labels=1, documents=1, tokens=500))
    assert "one_document" in kinds(judgement)
    assert judgement.tables["layers"]["state"].item() == "unlabelled"


def test_a_collapse_is_called_one_without_documents() -> None:
    builder = RecordBuilder("load log")
    builder.has_documents = False
    for layer, counts in enumerate(([900, 50, 30, 20], [240, 260, 250, 250])):
        builder.add_counts(SelectorShape(f"layer {layer}", layer, 4, 1), builder.row("all"), np.array(counts))
    judgement = checked(builder.build())
    assert [verdict.state for verdict in judgement.verdicts] == ["collapsed", "unlabelled"]
    assert judgement.facts["num_documents"] == 0 and judgement.facts["num_windows"] == 1
    assert "no_documents" in kinds(judgement)


def test_windows_are_units_and_it_says_so() -> None:
    record = replace(random_record(documents=8), has_documents=False)
    judgement = checked(record)
    text = next(note.text for note in judgement.unsaid if note.kind == "no_documents")
    assert "24 windows" in text
    row = judgement.tables["layers"].iloc[0]
    assert row["p_value"] > 0 and np.isnan(row["document_p"]) and np.isnan(row["position_p"])


def test_a_record_without_a_sample() -> None:
    judgement = checked(replace(random_record(documents=8), sample=None))
    assert "no_tokens" in kinds(judgement)
    assert set(judgement.tables) == {"layers", "experts", "lifts"}


def test_a_record_without_token_ids() -> None:
    judgement = checked(random_record(documents=8, k=2, options={"tokens": False}))
    assert "no_token_ids" in kinds(judgement)
    assert "pairs" in judgement.tables and "tokens" not in judgement.tables and "types" not in judgement.tables
    assert judgement.tables["layers"]["position_p"].notna().all()


def test_a_router_of_labels_without_controls_is_not_called_specialised() -> None:
    draw = np.random.default_rng(0)
    given = texts(draw)
    record = selectors_of(given, {"x": router("label", draw, given)}, 8)
    assert checked(record).tables["layers"]["state"].item() == "telling"
    assert checked(replace(record, sample=None)).tables["layers"]["state"].item() == "telling"
    assert "no_shadows" in kinds(judge(record, QUICK))


def test_one_shadow_is_too_few() -> None:
    judgement = checked(planted_record(0, ("label",), shadows=1))
    assert "few_shadows" in kinds(judgement)
    row = judgement.tables["layers"].iloc[0]
    assert row["shadow_bits"] > 0 and np.isnan(row["beyond_shadow_p"]) and row["state"] == "telling"


def test_a_hash_of_the_token_is_no_random_router() -> None:
    record = planted_record(0, ("label",), shadows=6)
    with_hash = replace(record, shadows={**record.shadows, "token hash": record.selectors})
    row, other = (judge(each, QUICK).tables["layers"].iloc[0] for each in (record, with_hash))
    assert row["shadow_bits"] == other["shadow_bits"]
    # a router that is no better than the hash is not beyond its controls
    assert row["beyond_shadow_p"] < 0.01 and other["beyond_shadow_p"] == 1


def test_layers_that_skip_tokens() -> None:
    draw = np.random.default_rng(0)
    given = texts(draw, documents=10)
    choice_NK = router("label", draw, given, 8, 2)
    skipping = choice_NK.copy()
    skipping[draw.random(len(skipping)) < 0.5] = NOT_CHOSEN
    skipping[given.document_N == 3] = NOT_CHOSEN
    judgement = checked(selectors_of(given, {"all": choice_NK, "some": skipping}, 8))
    whole, some = judgement.tables["layers"].to_dict("records")
    assert some["decisions"] == (skipping[:, 0] >= 0).sum() and whole["decisions"] == len(choice_NK)
    assert (whole["documents"], some["documents"]) == (30, 29)
    assert some["excess_bits"] == pytest.approx(whole["excess_bits"], rel=0.2)
    assert some["token_explained_bits"] == pytest.approx(whole["token_explained_bits"], abs=0.03)


def test_a_layer_without_any_decision_in_a_phase_is_left_out() -> None:
    builder = RecordBuilder("phases")
    draw = np.random.default_rng(0)
    for document in range(12):
        for phase in ("prompt", "generation"):
            row = builder.row(f"document {document}", label=f"label {document % 2}", phase=phase)
            for layer in range(2):
                if (layer, phase) != (1, "generation"):
                    score = np.array([4.0, 0, 0, 0]) * (phase == "generation")
                    choice_NK = choose(draw, np.tile(score, (50, 1)))
                    builder.add(SelectorShape(f"layer {layer}", layer, 4, 1), np.full(50, row), choice_NK)
    judgement = checked(builder.build())
    found = {(verdict.layer, verdict.phase): verdict.state for verdict in judgement.verdicts}
    assert set(found) == {(0, "prompt"), (1, "prompt"), (0, "generation")}
    assert found[0, "generation"] == "collapsed" and found[0, "prompt"] == "indifferent"
    assert "Layer 0 (generation) has collapsed" in " ".join(verdict.sentence for verdict in judgement.verdicts)
    assert "no_phase" not in kinds(judgement)


def test_an_uneven_null_is_no_collapse() -> None:
    # a Mixture-of-Depths that runs one token in eight: skip and run are as even as its null
    record = random_record(slots=2, labels=1, documents=10)
    selector = record.selectors[0]
    decisions_G = selector.tally.decisions_G
    tally = replace(
        selector.tally,
        chosen_GS=decisions_G[:, None] * np.array([0.875, 0.125]),
        null_GS=decisions_G[:, None] * np.array([0.875, 0.125]),
    )
    depths = replace(record, selectors=(replace(selector, tally=tally),), sample=None)
    row = judge(depths, QUICK).tables["layers"].iloc[0]
    assert row["state"] == "unlabelled" and row["max_share"] == pytest.approx(0.5)


def test_probabilities_give_commitment() -> None:
    draw = np.random.default_rng(0)
    builder = RecordBuilder("probabilities")
    logits = draw.standard_normal((400, 4)) + np.array([1.0, 0, 0, 0])
    probs_NS = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = np.repeat([builder.row(f"document {place}") for place in range(8)], 50)
    builder.add(SelectorShape("layer 0", 0, 4, 1), rows, probs_NS.argmax(axis=1)[:, None], probs_NS=probs_NS)
    row = checked(builder.build()).tables["layers"].iloc[0]
    entropy = -(probs_NS * np.log(probs_NS)).sum(axis=1).mean()
    assert row["commitment_nats"] == pytest.approx(np.log(4) - entropy)
    assert row["commitment_nats"] == pytest.approx(row["drift_nats"] + row["information_nats"])
    mean = probs_NS.mean(axis=0)
    assert row["drift_nats"] == pytest.approx((mean * np.log(4 * mean)).sum())


def test_near_copies_count_once() -> None:
    draw = np.random.default_rng(0)
    given = texts(draw, documents=12)
    record = selectors_of(given, {"x": router("indifferent", draw, given)}, 8)
    documents = record.documents.assign(group=[f"article {row // 4}" for row in range(36)])
    grouped = judge(replace(record, documents=documents), QUICK).tables["layers"].iloc[0]
    assert grouped["documents"] == 9 and grouped["units"] <= 9


def test_verdicts_that_fail_a_check() -> None:
    judgement = judge(planted_record(0, ("collapsed", "indifferent"), shadows=0), QUICK)
    assert [verdict.path for verdict in failing(judgement, ["collapsed"])] == ["layers.0.collapsed"]
    assert failing(judgement, ["specialised", "token"]) == []
    with pytest.raises(ValueError, match="there is no state colapsed; the states are collapsed, specialised"):
        failing(judgement, ["colapsed"])


def test_verdict_json_has_every_number_or_null() -> None:
    judgement = judge(planted_record(0, ("collapsed", "label"), shadows=3), QUICK)
    verdict = json.loads(json.dumps(verdict_dict(judgement), allow_nan=False))
    assert verdict["version"] == 1 and verdict["states"]["collapsed"] == 1
    assert set(verdict["states"]) == set(STATES)
    assert [layer["state"] for layer in verdict["layers"]] == [entry.state for entry in judgement.verdicts]
    assert set(verdict["layers"][0]) == set(TABLES["layers"])
    assert verdict["layers"][0]["commitment_nats"] is None
    assert verdict["layers"][1]["excess_bits"] == pytest.approx(judgement.tables["layers"]["excess_bits"][1])


def test_the_same_seed_gives_the_same_tables() -> None:
    record = planted_record(1, ("label", "token"), shadows=2, documents=6)
    one, other = judge(record, QUICK), judge(record, QUICK)
    for name, table in one.tables.items():
        pd.testing.assert_frame_equal(table, other.tables[name])
    assert one.headline == other.headline


def test_a_record_without_decisions_is_refused() -> None:
    record = random_record(documents=2)
    nothing = replace(record.selectors[0].tally, decisions_G=np.zeros(6), chosen_GS=np.zeros((6, 4)))
    with pytest.raises(ValueError, match="planted: no layer made a routing decision"):
        judge(replace(record, selectors=(replace(record.selectors[0], tally=nothing),)), QUICK)
