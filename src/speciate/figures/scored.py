"""Shared code of the figures of tasks: which scores vary with the length of the context, and what a panel is called."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from speciate.figures import style

COLUMNS = (
    *("task", "ablation", "metric", "part", "length", "depth", "over", "value", "low", "high", "interval"),
    *("num_seeds", "questions", "chance", "at_chance"),
)
"""The columns of table `tasks` that the figures read."""


class Panel(NamedTuple):
    """A score that a figure shows."""

    task: str
    metric: str
    part: str

    @property
    def title(self) -> str:
        """Return what stands above it: 'ruler, accuracy, multi key'."""
        return ", ".join(style.plain_name(name) for name in self if name)

    @property
    def name(self) -> str:
        """Return its name as it stands in a list: 'ruler multi key (accuracy)'."""
        of = " ".join(style.plain_name(name) for name in (self.task, self.part) if name)
        return f"{of} ({style.plain_name(self.metric)})"

    def rows(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of table `tasks` with this score."""
        is_of_part = (scores["metric"] == self.metric) & (scores["part"] == self.part)
        return scores[(scores["task"] == self.task) & is_of_part]


def scored_rows(tables: style.Tables) -> pd.DataFrame:
    """Return the rows of table `tasks` that have a score."""
    rows = tables["tasks"]
    return rows[rows["num_seeds"] > 0]


def panels(scores: pd.DataFrame, *pooled: str) -> list[Panel]:
    """Return the scores that have a row which pools `pooled`, such as `lengths`, and are not constant.

    Where all of them are constant, all are returned.
    """
    every = _all_panels(scores, pooled)
    return [panel for panel in every if panel.rows(scores)["value"].nunique() > 1] or every


def _all_panels(scores: pd.DataFrame, pooled: Sequence[str]) -> list[Panel]:
    rows = scores[scores["over"].isin(pooled)]
    return [Panel(*names) for names in dict.fromkeys(zip(rows["task"], rows["metric"], rows["part"], strict=True))]


def note_constant(scores: pd.DataFrame, drawn: Sequence[Panel], *pooled: str) -> str:
    """Return ' Not drawn, because ...' for a caption, with the scores that are constant; or nothing."""
    constant = [panel for panel in _all_panels(scores, pooled) if panel not in drawn]
    values = [f"{panel.name} {panel.rows(scores)['value'].iloc[0]:.3f}".replace("-", "−") for panel in constant]
    return f" Not drawn, because every arm has the same score everywhere: {'; '.join(values)}." if values else ""


def arms_of(scores: pd.DataFrame, subject: style.Subject) -> list[str]:
    """Return the arms that have a score, in the study's order."""
    present = set(scores["ablation"])
    return [arm for arm in subject.arms if arm in present]


def by_length(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each length of one score, over all depths."""
    rows = rows[rows["length"] >= 0]
    return rows[rows["over"] == ("depths" if "depths" in set(rows["over"]) else "")]


def whole(rows: pd.DataFrame) -> pd.Series:
    """Return each arm's value over all lengths and depths."""
    return rows[rows["length"] < 0].set_index("ablation")["value"]


def thousands(length: float) -> str:
    """Return a number of tokens as an axis shows it: 512, 4k."""
    return f"{length / 1024:g}k" if length >= 1024 and not length % 256 else f"{length:g}"


def intervals_in_words(rows: pd.DataFrame, subject: style.Subject) -> str:
    """Return what the intervals of these rows are over, as a sentence; nothing where there is none."""
    kinds = {"seeds": "over the seeds", "questions": "over groups of questions, by a bootstrap"}
    used: Sequence[str] = [words for name, words in kinds.items() if (rows["interval"] == name).any()]
    return f" Bars: {subject.confidence:.0%} intervals {' or '.join(used)}." if used else ""
