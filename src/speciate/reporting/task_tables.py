"""Tell what the arms score on a study's tasks: for each task a sentence and tables, and the reason where none is."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from speciate.config.stage_specs import ReportSpec
from speciate.reporting.finding import Tables
from speciate.reporting.formats import (
    DASH,
    Table,
    format_count,
    format_interval,
    format_number,
    join_names,
    make_table,
    plain_name,
    pluralise,
)

MOST_COLUMNS = 6
"""A task with more parts has a row for each part and arm instead of a column for each part."""


@dataclass(frozen=True)
class TaskPart:
    """What the report says of one task."""

    name: str
    text: str
    tables: Sequence[Table]
    differences: Sequence[Table]
    """Each arm minus the reference."""


def task_parts(tables: Tables, spec: ReportSpec) -> list[TaskPart]:
    """Return what the report says of each task; nothing for a study without tasks."""
    parts = []
    for task in spec.tasks:
        rows, differences = (tables[name][tables[name]["task"] == task] for name in ("tasks", "task_differences"))
        scored = rows[rows["num_seeds"] > 0]
        made = [
            table
            for metric in dict.fromkeys(scored["metric"])
            for table in _metric_tables(scored[scored["metric"] == metric], rows, spec)
        ]
        parts.append(TaskPart(task, _sentence(rows, spec), made, _difference_tables(differences, spec)))
    return parts


def whole_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each metric and part that pool all that the task varies."""
    if rows.empty:
        return rows
    pooled = rows.groupby(["metric", "part"])["over"].transform(lambda over: max(over, key=len))
    return rows[rows["over"] == pooled]


def _sentence(rows: pd.DataFrame, spec: ReportSpec) -> str:
    """Return which arms score above chance, and which have no score at all."""
    scored = whole_rows(rows[rows["num_seeds"] > 0])
    sentences = []
    for (metric, part), of_part in scored[scored["chance"].notna()].groupby(["metric", "part"], sort=False):
        what = f"{plain_name(str(metric))}{f' of {plain_name(str(part))}' if part else ''}"
        above = [arm.name for arm in spec.arms if arm.name in set(of_part.loc[~of_part["at_chance"], "ablation"])]
        sentences.append(
            f"Above chance in {what}: {join_names(above)} of {pluralise(of_part['ablation'].nunique(), 'arm')}."
        )
    if len(sentences) > MOST_COLUMNS:
        sentences = []
    without = rows[rows["num_seeds"] == 0]
    for reason, of_reason in without.groupby("reason", sort=False):
        sentences.append(f"No score of {join_names(of_reason['ablation'])}: {reason or 'its runs are missing'}.")
    return " ".join(sentences)


def _metric_tables(scored: pd.DataFrame, rows: pd.DataFrame, spec: ReportSpec) -> list[Table]:
    """Return the tables of one metric of a task: a column for each length, or else for each part."""
    tables = []
    lengths = scored[scored["over"].isin(["lengths", "lengths and depths"])]
    for part in dict.fromkeys(lengths["part"]):
        of_part = scored[scored["part"] == part]
        by_length = of_part[of_part["length"] >= 0]
        by_length = by_length[by_length["over"] == max(by_length["over"], key=len)]
        columns = {f"{length:,} tokens": by_length[by_length["length"] == length] for length in _sorted(by_length)}
        columns["all lengths"] = of_part[of_part["length"] < 0]
        tables.append(_wide_table(columns, rows, spec, _title(of_part)))
    others = whole_rows(scored[~scored["part"].isin(set(lengths["part"]))])
    parts = list(dict.fromkeys(others["part"]))
    if len(parts) > MOST_COLUMNS:
        tables.append(_long_table(others, spec, _title(others, False)))
    elif parts:
        columns = {plain_name(part) or "score": others[others["part"] == part] for part in parts}
        tables.append(_wide_table(columns, rows, spec, _title(others, False)))
    return tables


def _sorted(rows: pd.DataFrame) -> list[int]:
    return sorted({int(length) for length in rows["length"]})


def _title(rows: pd.DataFrame, with_part: bool = True) -> str:
    first = rows.iloc[0]
    part = f", {plain_name(first['part'])}" if with_part and first["part"] else ""
    return f"{plain_name(first['task'])}: {plain_name(first['metric'])}{part}"


def _wide_table(columns: dict[str, pd.DataFrame], rows: pd.DataFrame, spec: ReportSpec, title: str) -> Table:
    """Return a table with a row for each arm, and what guessing scores below them."""
    together = pd.concat(columns.values())
    by_arm = {str(arm): of_arm for arm, of_arm in rows.groupby("ablation", sort=False)}
    lines = []
    for arm in spec.arms:
        if arm.name not in by_arm:
            continue
        of_arm, values = by_arm[arm.name], []
        for cells in columns.values():
            cell = cells[cells["ablation"] == arm.name]
            values.append(score_text(cell.iloc[0]) if len(cell) else DASH)
        seeds, reason = int(of_arm["num_seeds"].max()), str(of_arm["reason"].iloc[0])
        if reason and not seeds:
            values = [f"no score: {reason}", *[DASH] * (len(columns) - 1)]
        elif reason:
            values[-1] += f"; no score of {pluralise(int(of_arm['missing'].max()), 'seed')}: {reason}"
        lines.append([plain_name(arm.name), *values, format_count(seeds)])
    chances = [cells["chance"].mean() for cells in columns.values()]
    if together["chance"].notna().any():
        lines.append(["guessing", *(format_number(chance) for chance in chances), DASH])
    counts = [f"{name} ({pluralise(int(cells['questions'].max()), 'question')})" for name, cells in columns.items()]
    return make_table(title, ["arm"], [*counts, "seeds"], lines, note=interval_note(together, spec))


def _long_table(rows: pd.DataFrame, spec: ReportSpec, title: str) -> Table:
    """Return a table with a row for each part and arm."""
    lines = []
    for part, of_part in rows.groupby("part", sort=False):
        for arm in spec.arms:
            for _, cell in of_part[of_part["ablation"] == arm.name].iterrows():
                counts = [format_count(cell[name]) for name in ("questions", "num_seeds")]
                values = [score_text(cell), format_number(cell["chance"]), *counts]
                lines.append([plain_name(str(part)), plain_name(arm.name), *values])
    numbers = ["score", "guessing", "questions", "seeds"]
    return make_table(title, ["part", "arm"], numbers, lines, note=interval_note(rows, spec))


def score_text(cell: pd.Series) -> str:
    """Return a score with its interval, and whether it is at chance: '0.063 [0.049, 0.077], at chance'."""
    interval = format_interval(cell["low"], cell["high"])
    text = format_number(cell["value"]) + ("" if interval == DASH else f" {interval}")
    return f"{text}, at chance" if cell["at_chance"] else text


def interval_note(rows: pd.DataFrame, spec: ReportSpec) -> str:
    """Return what the intervals of a table are over."""
    kinds = {"seeds": "Student’s t over the seeds", "questions": "a bootstrap over groups of questions"}
    used = [words for name, words in kinds.items() if (rows["interval"] == name).any()]
    if not used:
        return "No interval: all seeds and all questions have the same score."
    where = " Where all seeds have the same score, the interval is the bootstrap’s." if len(used) > 1 else ""
    note = f"Means over questions, then over seeds; {spec.confidence:.0%} intervals by {' or '.join(used)}.{where}"
    return (
        f"{note} At chance: the score minus that of guessing has an interval, over seeds or over questions, that holds"
        " zero or lies below it."
    )


def _difference_tables(differences: pd.DataFrame, spec: ReportSpec) -> list[Table]:
    """Return a table of each arm's score minus the reference's; nothing where no arm is compared."""
    whole = whole_rows(differences) if len(differences) else differences
    lines = [
        [plain_name(str(row["metric"])), plain_name(str(row["part"])) or DASH, plain_name(str(row["ablation"]))]
        + [format_number(row["difference"], sign=True), format_interval(row["low"], row["high"], sign=True)]
        + [format_count(row["questions"]), format_count(row["num_seeds"])]
        for _, of_part in whole.groupby(["metric", "part"], sort=False)
        for _, row in of_part.iterrows()
    ]
    if not lines:
        return []
    title = f"{plain_name(str(whole['task'].iloc[0]))}: arm minus {plain_name(spec.reference)}"
    note = f"On the same questions at the same seeds. {interval_note(whole, spec).partition(' At chance')[0]}"
    numbers = ["difference", "interval", "questions", "seeds"]
    return [make_table(title, ["metric", "part", "arm"], numbers, lines, note=note)]
