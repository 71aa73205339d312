"""Test what is said of published counts, against the figures that their authors' data have.

published_counts.csv: tokens per expert by label and layer, as the authors of OLMoE published them
(github.com/allenai/OLMoE, scripts/routing_output, Apache-2.0): OLMoE-1B-7B and Mixtral-8x7B, all choices and first
choices. They are sums over a label: no documents, and so no null.
"""

import pathlib

import numpy as np
import pandas as pd
import pytest

from speciate.analysis.routing.judge import judge
from speciate.analysis.routing.judgement import Judgement
from speciate.selection.record_builder import RecordBuilder, SelectorShape

PUBLISHED = pd.read_csv(pathlib.Path(__file__).parent / "published_counts.csv")


def counts_record(rows: pd.DataFrame, num_chosen: int) -> Judgement:
    builder = RecordBuilder("published")
    builder.has_documents = False
    for row in rows.to_dict("records"):
        count_S = np.array([int(text) for text in row["counts"].split()])
        shape = SelectorShape(f"layer {row['layer']}", int(row["layer"]), len(count_S), num_chosen)
        builder.add_counts(shape, builder.row(row["label"], label=row["label"]), count_S)
    return judge(builder.build())


@pytest.mark.parametrize(
    ("model", "num_chosen", "information", "violation", "effective"),
    [
        ("OLMoE-1B-7B", 8, [0.1674, 0.4005, 0.5012], [1.10, 1.75, 1.73], [60.8, 57.7, 56.9]),
        ("OLMoE-1B-7B", 1, [0.6284, 0.9733, 1.0278], [5.71, 6.36, 7.22], [45.7, 40.9, 36.7]),
        ("Mixtral-8x7B", 2, [0.0031, 0.0037, 0.0090], [0.18, 0.07, 0.15], [8.0, 8.0, 7.9]),
        ("Mixtral-8x7B", 1, [0.0129, 0.0105, 0.0244], [0.26, 0.15, 0.15], [7.8, 7.9, 7.8]),
    ],
)
def test_published_counts(
    model: str, num_chosen: int, information: list[float], violation: list[float], effective: list[float]
) -> None:
    rows = PUBLISHED[(PUBLISHED["model"] == model) & (PUBLISHED["num_chosen"] == num_chosen)]
    judgement = counts_record(rows, num_chosen)
    layers = judgement.tables["layers"]
    assert layers["layer"].to_list() == [0, 7, 15]
    assert layers["information_bits"].to_list() == pytest.approx(information, abs=6e-5)
    assert layers["max_vio"].to_list() == pytest.approx(violation, abs=0.006)
    assert layers["effective_experts"].to_list() == pytest.approx(effective, abs=0.06)
    # sums have no null, and a healthy model is not condemned
    assert layers[["p_value", "q_value", "excess_bits", "max_share_low", "split_half"]].isna().all(axis=None)
    assert judgement.tables["lifts"]["q_value"].isna().all()
    assert set(layers["state"]) == {"undecided"}
    assert judgement.headline.startswith("None of 3 layers has collapsed.")
    assert {"no_documents", "labels_untested", "no_tokens", "no_shadows"} <= {note.kind for note in judgement.unsaid}
    assert f"{effective[0]:.1f} of" in layers["sentence"][0] and "cannot be tested" in layers["sentence"][0]


def test_lifts_of_published_counts_are_shares_over_their_mean() -> None:
    rows = PUBLISHED[
        (PUBLISHED["model"] == "Mixtral-8x7B") & (PUBLISHED["num_chosen"] == 2) & (PUBLISHED["layer"] == 0)
    ]
    share = {row["label"]: np.array(row["counts"].split(), dtype=float) for row in rows.to_dict("records")}
    share = {label: count / count.sum() for label, count in share.items()}
    lifts = counts_record(rows, 2).tables["lifts"]
    row = lifts[(lifts["label"] == "github") & (lifts["expert"] == 3)].iloc[0]
    assert row["share"] == pytest.approx(share["github"][3])
    assert row["lift"] == pytest.approx(share["github"][3] / np.mean([value[3] for value in share.values()]))


def test_a_published_collapse_is_called_one() -> None:
    # moe-emergence without balancing, layer 9, on its whole evaluation set at step 500: shares of three digits
    share = np.array([34, 745, 45, 21, 18, 52, 76, 10])
    builder = RecordBuilder("moe-emergence")
    builder.has_documents = False
    builder.add_counts(SelectorShape("blocks.9.mlp.router", 9, 8, 1), builder.row("evaluation"), share * 100)
    judgement = judge(builder.build())
    (row,) = judgement.tables["layers"].to_dict("records")
    assert row["effective_experts"] == pytest.approx(2.77, abs=0.015)
    assert row["max_vio"] == pytest.approx(4.96, abs=0.01)
    assert row["gini"] == pytest.approx(0.69, abs=0.005)
    assert row["state"] == "collapsed"
    assert judgement.headline == "Layer 9 has collapsed."
    assert "expert 1 takes 74.4 %" in row["sentence"] and "2.8 of 8 experts" in row["sentence"]
