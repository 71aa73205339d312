"""Build the report's tables of single layers: when their choices settle."""

from collections.abc import Iterator

import pandas as pd

from speciate.config.stage_specs import ReportSpec
from speciate.reporting.findings import Tables, short_path
from speciate.reporting.formats import Table, format_number, format_percent, make_table, plain_name

SHARES = (0.1, 0.25, 0.5, 0.75)
"""Shares of the training after which saturation is shown."""


def by_selector(frame: pd.DataFrame, spec: ReportSpec) -> Iterator[tuple[list[str], pd.DataFrame]]:
    """Yield ([arm, selector] as the page names them, its rows), in the order of the study and of depth."""
    for arm in spec.arms:
        of_arm = frame[frame["ablation"] == arm.name].sort_values(["layer", "selector"], kind="stable")
        for path, rows in of_arm.groupby("selector", sort=False):
            yield [plain_name(arm.name), short_path(str(path))], rows


def stability_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return a table of saturation at parts of the training, and of churn in its last quarter."""
    rows = []
    for names, of_selector in by_selector(tables["stability"], spec):
        progress = of_selector["step"] / of_selector["step"].max()
        shown = []
        for share in SHARES:
            # the last check of each seed that is not later
            until = of_selector[progress <= share].sort_values("step").groupby("seed").tail(1)
            shown.append(format_number(float(until["saturation_kappa"].mean())))
        late = of_selector[progress > SHARES[-1]]
        churn = format_percent(float(late["churn"].mean())), format_number(float(late["churn_ratio"].mean()))
        rows.append([*names, *shown, *churn])
    numbers = [f"saturation after {share:.0%}" for share in SHARES]
    numbers += [f"churn after {SHARES[-1]:.0%}", "of chance"]
    note = (
        "Saturation: agreement of a selector’s choices with its final ones, on the same tokens, corrected for the"
        " agreement that loads alone would give (Cohen’s kappa): 0 by chance, 1 where all are final. Churn: share of"
        " choices that change from one check to the next, and the same over what would change by chance. Means over"
        " seeds; a dash where all tokens have the same slot, so that there is nothing to agree about."
    )
    return [make_table("When do choices settle?", ["arm", "selector"], numbers, rows, note=note)] if rows else []
