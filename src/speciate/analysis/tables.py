"""Columns of every table of a study, and the code that writes tables: the same values give the same bytes.

config/stage_specs.py lists which stage writes which table. `measure` leaves empty what needs the whole study (q-values,
excess over controls, state): the columns LATER, which `compare` fills in. Any other column must be given wherever rows
are made, if only as NaN; one that is forgotten is refused. Floats have nine significant digits in csv and all of them
in parquet. A value that does not exist is an empty field in csv and a null in parquet.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from speciate.config.contracts.evaluation import SCORES
from speciate.config.contracts.statistics import LOAD, RULES

_RUN = {"ablation": "str", "seed": "int64"}
_AT = {**_RUN, "selector": "str", "layer": "int64", "step": "int64", "probe": "str"}
_CELL = {"metric": "str", "part": "str", "length": "int64", "depth": "float64", "over": "str"}
_DIFFERENCE = {"num_seeds": "int64", "missing": "int64", "difference": "float64", "low": "float64", "high": "float64"}


def _floats(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "float64")


Tables = Mapping[str, Mapping[str, str]]
"""Table -> column -> type."""
COLUMNS: dict[str, dict[str, str]] = {
    # one row per run
    "runs": {
        **_RUN,
        "about": "str",
        **dict.fromkeys(("parameters_total", "parameters_active", "num_steps", "train_tokens"), "int64"),
        **_floats("loss", "loss_error", "bits_per_byte"),
        **dict.fromkeys(("spikes", "skipped"), "int64"),
        "num_selectors": "int64",
        **_floats(*(statistic.name for statistic in LOAD)),
        **_floats("information_bits", "excess_information_bits", "excess_low_bits", "excess_high_bits"),
        **_floats("least_excess_bits", "least_excess_low_bits"),
        **_floats("token_explained_bits", "conditional_information_bits"),
        **_floats("commitment_nats", "drift_nats", "information_nats"),
        **_floats("matched_nats", "need_correlation", "selectivity_nats"),
        **_floats(*(f"{rule}_step" for rule in RULES)),
        "state": "str",
    },
    # one row per run, selector, step and probe
    "selectors": {
        **_AT,
        "num_slots": "int64",
        "num_chosen": "float64",
        "decisions": "int64",
        **_floats(*(column for statistic in LOAD for column in (statistic.name, *statistic.companions))),
        **_floats("information_bits", "null_mean_bits", "null_low_bits", "null_high_bits", "information_z", "p_value"),
        **_floats("q_value", "excess_information_bits", "normalised_information"),
        "load_state": "str",
        **_floats("commitment_nats", "drift_nats", "information_nats"),
        **_floats("token_explained_bits", "conditional_information_bits", "conditional_p_value", "shared_token_share"),
    },
    # one row per run, selector, step, probe, domain and slot
    "experts": {**_AT, "domain": "str", "slot": "int64", **_floats("share", "lift", "placebo_lift")},
    # one row per run, selector, lexical type and slot
    "types": {
        **_RUN,
        "selector": "str",
        "layer": "int64",
        "type": "str",
        "slot": "int64",
        "tokens": "int64",
        **_floats("share", "lift"),
    },
    # one row per run and domain
    "losses": {
        **_RUN,
        "domain": "str",
        **_floats("nats", "nats_low", "nats_high", "nats_error", "bits_per_byte"),
        **_floats("difference_bits", "difference_low_bits", "difference_high_bits"),
        **dict.fromkeys(("tokens", "bytes", "documents"), "int64"),
        **_floats("effective_groups"),
    },
    # one row per run, selector (and 'any') and rule
    "verdicts": {
        **_RUN,
        "selector": "str",
        "layer": "int64",
        "rule": "str",
        "fired": "bool",
        **_floats("first_step", "checks_to_fire"),
    },
    # one row per run, selector and step: how its choices differ from the finished model's, and from the check before
    "stability": {
        **_RUN,
        "selector": "str",
        "layer": "int64",
        **dict.fromkeys(("step", "previous_step", "decisions"), "int64"),
        **_floats("saturation", "saturation_by_chance", "saturation_kappa", "saturation_low", "saturation_high"),
        **_floats("churn", "churn_by_chance", "churn_ratio", "churn_low", "churn_high"),
    },
    # one row per run, selector and length of texts (0: whole documents): how well their domain is told
    "telling": {
        **_RUN,
        "selector": "str",
        "layer": "int64",
        **dict.fromkeys(("length", "texts", "groups"), "int64"),
        **_floats("token_accuracy", "selection_accuracy", "both_accuracy", "gain", "gain_low", "gain_high"),
    },
    # one row per run, selector and predictor of its choices: token, previous_token, position
    "predictors": {
        **_RUN,
        "selector": "str",
        "layer": "int64",
        "predictor": "str",
        **dict.fromkeys(("decisions", "values"), "int64"),
        **_floats("entropy_bits", "information_bits", "by_chance_bits", "share", "null_low", "null_high", "p_value"),
    },
    # one row per run, step and series ('train' or a domain's validation)
    "curves": {**_RUN, "step": "int64", "series": "str", "nats": "float64"},
    # one row per run, step, probe, module and metric that it recorded besides its choices (selection/metrics.py)
    "measurements": {
        **_RUN,
        "step": "int64",
        "probe": "str",
        "path": "str",
        "layer": "int64",
        "name": "str",
        **_floats("at", "value"),
    },
    # one row per run and single token, for the details that an objective shows
    "details": {
        **_RUN,
        "what": "str",
        **dict.fromkeys(("item", "position", "token"), "int64"),
        **_floats("x", "y"),
        "text": "str",
    },
    # bootstrap draws of one run, paired across runs by `draw`; only `measure` writes it
    "draws": {**_RUN, "statistic": "str", "name": "str", "draw": "int64", "value": "float64"},
    # one row per ablation, mixer (of which `layer` is the first) and block length; written by `cost`, and about no run
    "cost": {
        "ablation": "str",
        "mixer": "str",
        "layer": "int64",
        "length": "int64",
        "kept_bytes": "int64",
        **_floats("train_ms", "decode_ms"),
    },
    # one row per run, selector, intervention, slot (or number of slots kept, or -1) and domain ('all': their mean)
    "interventions": {
        **_RUN,
        "selector": "str",
        "layer": "int64",
        "intervention": "str",
        "slot": "int64",
        "domain": "str",
        **_floats("cost_nats", "cost_low_nats", "cost_high_nats", "clean_nats"),
        **dict.fromkeys(("tokens", "documents", "blocks"), "int64"),
    },
    # one row per run and selector: what its choice is worth
    "effects": {
        **_RUN,
        "selector": "str",
        "layer": "int64",
        **_floats(*(f"matched_{name}nats" for name in ("", "low_", "high_"))),
        **_floats("in_domain_nats", "random_nats", "top_nats"),
        **_floats("kept_loaded_nats", "kept_lifted_nats", "kept_random_nats"),
        **_floats("need_correlation", "selectivity_nats", "selectivity_low_nats", "selectivity_high_nats"),
        **_floats("selectivity_excess_nats"),
        "use": "str",
    },
    # one row per run, selector ('all': together), run or step from which another stands in, and domain ('all': mean)
    "swaps": {
        **_RUN,
        "selector": "str",
        "layer": "int64",
        "donor": "str",
        "other_ablation": "str",
        "other_seed": "int64",
        "other_step": "int64",
        "relabelled": "bool",
        "domain": "str",
        **_floats("cost_nats", "cost_low_nats", "cost_high_nats", "clean_nats"),
        **dict.fromkeys(("tokens", "documents", "blocks"), "int64"),
    },
    # one row per pair of runs and selector that both have
    "agreement": {
        **_RUN,
        "other_ablation": "str",
        "other_seed": "int64",
        "selector": "str",
        "layer": "int64",
        "decisions": "int64",
        "ami": "float64",
    },
    # one row per statistic and ablation
    "comparisons": {
        "statistic": "str",
        "ablation": "str",
        "reference": "str",
        **_DIFFERENCE,
        **_floats("p_value", "p_holm", "minimum_detectable"),
    },
    # one row per ablation
    "collapse": {
        "ablation": "str",
        "runs": "int64",
        "missing": "int64",
        "collapsed": "int64",
        **_floats("share", "low", "high"),
    },
    # one row per hypothesis
    "hypotheses": {
        **dict.fromkeys(("name", "statement", "statistic", "test", "arm", "reference", "direction"), "str"),
        **_floats("margin", "value"),
        # of a proportion, the runs that count; of a trend, the arms with their numbers; the scale of the statistic
        **dict.fromkeys(("counts_if", "over", "per", "scale"), "str"),
        **_DIFFERENCE,
        "confidence": "float64",
        "verdict": "str",
    },
    # one row per arm of a sweep and parameter; `value` is NaN where the parameter is a named choice, `label` its name
    "cells": {**dict.fromkeys(("sweep", "ablation", "parameter"), "str"), "value": "float64", "label": "str"},
    # one row per arm of a sweep: how many of its runs have collapsed
    "sweeps": {
        **dict.fromkeys(("sweep", "ablation"), "str"),
        **dict.fromkeys(("runs", "collapsed"), "int64"),
        **_floats("share", "low", "high", "loss"),
    },
    # one row per sweep with a critical parameter and value of its other parameter
    "critical": {
        **dict.fromkeys(("sweep", "parameter", "other"), "str"),
        "at": "float64",
        "num_seeds": "int64",
        **_floats("estimate", "low", "high"),
        "position": "str",
        **_floats("growth", "growth_low", "growth_high"),
    },
    # one row per question and metric of one task; `evaluate_tasks` writes one table for each run and task
    "scores": SCORES,
    # one row per task, ablation and cell (analysis/tasks/cells.py); where no run has a score, one row with the reason
    "tasks": {
        **dict.fromkeys(("task", "ablation"), "str"),
        **_CELL,
        **_floats("value", "low", "high"),
        "interval": "str",
        **dict.fromkeys(("num_seeds", "missing", "questions", "groups"), "int64"),
        "chance": "float64",
        "at_chance": "bool",
        "reason": "str",
    },
    # one row per task, ablation and cell: what it scores minus the reference, on the same questions at the same seeds
    "task_differences": {
        **dict.fromkeys(("task", "ablation", "reference"), "str"),
        **_CELL,
        **_floats("difference", "low", "high"),
        "interval": "str",
        **dict.fromkeys(("num_seeds", "missing", "questions"), "int64"),
    },
    # one row per run of the study that is not in the tables; where it was trained, the step at which it failed and why
    "missing": {**_RUN, "step": "float64", "reason": "str"},
}

LATER: dict[str, tuple[str, ...]] = {
    "runs": (
        *("about", "excess_information_bits", "excess_low_bits", "excess_high_bits"),
        *("least_excess_bits", "least_excess_low_bits", "state"),
        *("matched_nats", "need_correlation", "selectivity_nats"),
    ),
    "selectors": ("q_value", "excess_information_bits", "normalised_information", "load_state"),
    "losses": ("difference_bits", "difference_low_bits", "difference_high_bits"),
}
"""Table -> the columns that no single run can fill, so that `measure` leaves them empty and `compare` fills them."""
_EMPTY = {"str": "", "float64": np.nan}


def conform(table: str, rows: pd.DataFrame, tables: Tables = COLUMNS, *, later: Sequence[str] = ()) -> pd.DataFrame:
    """Return `rows` with exactly the columns of `table`, in its order and types. A table without rows needs no columns.

    Args:
        table: name of the table.
        rows: its rows, with columns in any order.
        tables: columns of all tables: these, or the data card's.
        later: columns of text and floats that a later stage fills; they are left empty here.

    Raises:
        ValueError: the rows have a column that the table does not have, or lack one; names the columns.
    """
    columns = tables[table]
    unknown = [name for name in rows.columns if name not in columns]
    absent = [name for name in columns if name not in rows.columns and name not in later]
    if unknown:
        raise ValueError(f"{table}.parquet: its columns have no {', '.join(unknown)}, for which there are values")
    if absent and len(rows):
        raise ValueError(f"{table}.parquet: nothing fills its column {', '.join(absent)}")
    full = {
        name: rows[name].to_numpy() if name in rows.columns else np.full(len(rows), _EMPTY.get(kind, 0))
        for name, kind in columns.items()
    }
    return pd.DataFrame(full, index=range(len(rows))).astype(columns)


def stack(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of all parts, one below the other; a table without columns where there are none.

    Raises:
        ValueError: a part lacks a column of another; pandas would fill it with NaN.
    """
    different = sorted({str(name) for part in parts for name in parts[0].columns.symmetric_difference(part.columns)})
    if different:
        raise ValueError(f"only some of the rows have {', '.join(different)}")
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def read_table(file: pathlib.Path, table: str) -> pd.DataFrame:
    """Read a table from parquet. Raises ValueError naming file and columns where its columns are not the table's."""
    rows = pd.read_parquet(file)
    names, expected = [str(name) for name in rows.columns], list(COLUMNS[table])
    if names != expected:
        differences = {
            "lacks": [name for name in expected if name not in names],
            "has besides": [name for name in names if name not in expected],
        }
        said = [f"{verb} {', '.join(columns)}" for verb, columns in differences.items() if columns]
        raise ValueError(f"{file}: is not table {table}: {'; '.join(said) or 'its columns have another order'}")
    return rows


def write_parquet(rows: pd.DataFrame, table: str, file: pathlib.Path, tables: Tables = COLUMNS) -> None:
    """Write a table as parquet, without the index and without metadata of the library that wrote it."""
    arrow_types = {"str": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
    schema = pa.schema([(name, arrow_types[kind]) for name, kind in tables[table].items()])
    arrays = [pa.array(rows[field.name].to_numpy(), field.type, from_pandas=True) for field in schema]
    pyarrow.parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), file, compression="zstd")


def csv_field(value: object) -> str:
    """Return one csv field: nine significant digits of a float, nothing for NaN."""
    if isinstance(value, float):
        return "" if np.isnan(value) else format(value + 0.0, ".9g")
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


def write_csv(rows: pd.DataFrame, file: pathlib.Path) -> None:
    """Write a table as csv: a header, one line per row, fields quoted only where they must be."""
    rows.map(csv_field).to_csv(file, index=False, lineterminator="\n", encoding="utf-8")
