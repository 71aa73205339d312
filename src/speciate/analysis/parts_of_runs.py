"""Statistics of parts of a run that a hypothesis may name: the loss of a domain, a layer's load, a lexical type's slot.

`loss.code` is the loss of one domain, `max_share.layer9` the largest share of the selectors of one layer, and
`type_share.keyword` the largest share of a lexical type's tokens that one slot gets.
"""

from collections.abc import Iterable

import pandas as pd

from speciate.config.contracts.statistics import BY_NAME, OF_DOMAIN, OF_LAYER, TYPE_SHARE

RUN = ["ablation", "seed"]


def statistics_of_parts(
    names: Iterable[str], losses: pd.DataFrame, selectors: pd.DataFrame, types: pd.DataFrame
) -> pd.DataFrame:
    """Return a row for each run that has such a part, with a column for each name that is about parts.

    Args:
        names: statistics as hypotheses name them; those of whole runs are passed over.
        losses: table `losses` of the study's runs.
        selectors: table `selectors`; the finished model's rows on the whole probe set count.
        types: table `types`.

    Raises:
        ValueError: no run has the domain, or none has a selector in the layer; names the statistic.
    """
    rows = pd.DataFrame({column: losses[column] for column in RUN}).drop_duplicates(ignore_index=True)
    for name in dict.fromkeys(names):
        value = _value(name, losses, selectors[selectors["probe"] == "full"], types)
        if value is None:
            continue
        if not len(value) and len(losses):
            raise ValueError(f"statistic {name}: no run of the study has such a part")
        rows = rows.merge(value.rename(name).reset_index(), "left", RUN)
    return rows


def _value(name: str, losses: pd.DataFrame, selectors: pd.DataFrame, types: pd.DataFrame) -> pd.Series | None:
    """Return the statistic of each run that has the part, by (ablation, seed); None if it is of whole runs."""
    statistic, *part = name.split(".")
    if statistic in OF_DOMAIN and part:
        column = {"loss": "nats"}.get(statistic, statistic)
        return losses[losses["domain"] == part[0]].set_index(RUN)[column]
    if statistic == TYPE_SHARE:
        of_type = _of_layer(types[types["type"] == part[0]], part[1:])
        # a run whose probe holds no token of the type has no share of it
        return of_type.groupby(RUN)["share"].agg("max")
    if statistic in OF_LAYER and part:
        rows = _of_layer(selectors, part)
        if statistic == "information_bits":  # in excess of the permutations' mean, as in table `runs`
            return (rows["information_bits"] - rows["null_mean_bits"]).groupby([rows[key] for key in RUN]).mean()
        reduction = BY_NAME[statistic].over_selectors
        return rows.groupby(RUN)[statistic].agg(lambda value_S: value_S.agg(reduction, skipna=False))
    return None


def _of_layer(rows: pd.DataFrame, part: list[str]) -> pd.DataFrame:
    """Return the rows of the layer that `part` names; all of them where it names none."""
    return rows[rows["layer"] == int(part[0].removeprefix("layer"))] if part else rows
