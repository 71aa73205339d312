"""Common names for the selectors of unlike arms, so that one column of a figure shows one layer of every arm.

Nothing changes where the selectors of all arms are modules of the same name. Otherwise (a router of experts in one arm,
an indexer in another) an arm's only selector in a layer is named after the layer, `blocks.3`. One of several keeps its
path. Only figures and pages use these names: the tables keep the paths, and controls are matched by path.
"""

from collections.abc import Mapping

import pandas as pd


def align_selectors(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the tables with common selector names, in every table that has a column `selector`."""
    known = [frame[["ablation", "selector", "layer"]] for frame in tables.values() if _has_selectors(frame)]
    if not known:
        return dict(tables)
    pairs = pd.concat(known).drop_duplicates()
    pairs = pairs[(pairs["layer"] >= 0) & (pairs["selector"] != "any")]
    paths = pairs.groupby("ablation")["selector"].agg(frozenset)
    if paths.nunique() < 2:
        return dict(tables)
    alone = pairs.groupby(["ablation", "layer"])["selector"].transform("nunique") == 1
    short = {(row.ablation, row.selector): f"blocks.{row.layer}" for row in pairs[alone].itertuples()}
    return {name: _rename_selectors(frame, short) for name, frame in tables.items()}


def _has_selectors(frame: pd.DataFrame) -> bool:
    return {"ablation", "selector", "layer"} <= set(frame.columns)


def _rename_selectors(frame: pd.DataFrame, short: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    if not {"ablation", "selector"} <= set(frame.columns):
        return frame
    pairs = zip(frame["ablation"], frame["selector"], strict=True)
    return frame.assign(selector=[short.get((ablation, path), path) for ablation, path in pairs])
