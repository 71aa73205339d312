"""Selectors of arms of different kinds in one column a layer, so that a study of several families can be seen at once.

Arms whose selectors are modules of the same name need nothing. Where they are not (a router of experts in one arm, an
indexer in another), an arm's only selector of a layer is called by the layer, `blocks.3`; one of several keeps
its path.
For figures and pages alone: tables keep the paths, and controls are matched by them.
"""

from collections.abc import Mapping

import pandas as pd


def aligned(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables with the column `selector` so named, wherever there is one."""
    known = [frame[["ablation", "selector", "layer"]] for frame in tables.values() if _names(frame)]
    if not known:
        return dict(tables)
    pairs = pd.concat(known).drop_duplicates()
    pairs = pairs[(pairs["layer"] >= 0) & (pairs["selector"] != "any")]
    paths = pairs.groupby("ablation")["selector"].agg(frozenset)
    if paths.nunique() < 2:
        return dict(tables)
    alone = pairs.groupby(["ablation", "layer"])["selector"].transform("nunique") == 1
    short = {(row.ablation, row.selector): f"blocks.{row.layer}" for row in pairs[alone].itertuples()}
    return {name: _renamed(frame, short) for name, frame in tables.items()}


def _names(frame: pd.DataFrame) -> bool:
    return {"ablation", "selector", "layer"} <= set(frame.columns)


def _renamed(frame: pd.DataFrame, short: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    if not {"ablation", "selector"} <= set(frame.columns):
        return frame
    pairs = zip(frame["ablation"], frame["selector"], strict=True)
    return frame.assign(selector=[short.get((ablation, path), path) for ablation, path in pairs])
