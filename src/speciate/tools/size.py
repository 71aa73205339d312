"""Estimate a study's parameters, memory, operations and device-hours.

Nothing is trained, and no weights are held: a model of many billion parameters is sized in seconds on a laptop. What is
printed has units that suit its size. The table always has the same: GB, GFLOP, EFLOP, billion tokens, device-hours.

Example:
    speciate size --study studies/moe_arch.yaml --vocabulary 50000 --device H100
"""

import argparse
import csv
import pathlib

from speciate.cli import log
from speciate.config.run import RunSpec
from speciate.config.study import Study, read_study
from speciate.io import atomic_write
from speciate.model.profiling.flops import PEAKS
from speciate.training.resource_estimate import ResourceEstimate, estimate_resources

COLUMNS = ("ablation", "about", "quantity", "value", "unit")
SUMS = ("all", "a device")
UNITS = {
    "GB": {"B": 1e-9, "kB": 1e-6, "MB": 1e-3, "GB": 1.0, "TB": 1e3},
    "GFLOP": {"FLOP": 1e-9, "kFLOP": 1e-6, "MFLOP": 1e-3, "GFLOP": 1.0, "TFLOP": 1e3, "PFLOP": 1e6},
    "EFLOP": {"MFLOP": 1e-12, "GFLOP": 1e-9, "TFLOP": 1e-6, "PFLOP": 1e-3, "EFLOP": 1.0, "ZFLOP": 1e3},
    "billion": {"": 1e-9, "thousand": 1e-6, "million": 1e-3, "billion": 1.0, "trillion": 1e3},
    "device-hours": {"device-seconds": 1 / 3600, "device-minutes": 1 / 60, "device-hours": 1.0},
}
"""Unit of the table -> the units in which its values are printed, by their size in it, in ascending order."""
Row = tuple[str, str, str, float, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--study", type=pathlib.Path, required=True, help="study file")
    parser.add_argument("--ablation", action="append", help="arm to size; may be repeated (default: all)")
    parser.add_argument(
        "--vocabulary",
        type=int,
        required=True,
        help="entries of the tokenizer's vocabulary, since no tokenizer is fitted",
    )
    parser.add_argument("--device", default="H100", help="device whose peak speed is assumed (default: %(default)s)")
    parser.add_argument(
        "--mfu",
        type=float,
        default=0.4,
        help="model FLOPs utilisation: the share of the peak that is reached (default: %(default)s)",
    )
    parser.add_argument("--output", type=pathlib.Path, help="table to write, .csv")


def main(arguments: argparse.Namespace) -> None:
    """Estimate what the runs take, print it, and write the table."""
    check_arguments(arguments.vocabulary, arguments.device, arguments.mfu)
    study = read_study(arguments.study)
    estimates = {
        name: estimate_arm(study, name, arguments.vocabulary) for name in arguments.ablation or study.ablations
    }
    rows = [
        row
        for run, estimate in estimates.values()
        for row in estimate_rows(run, estimate, arguments.device, arguments.mfu)
    ]
    print(format_rows(rows))
    if arguments.output is not None:
        with atomic_write(arguments.output) as temp_path, temp_path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows)
        log(f"wrote {arguments.output}")


def check_arguments(vocabulary: int, device: str, mfu: float) -> None:
    """Raise ValueError where an argument of the command line is impossible."""
    if vocabulary < 1:
        raise ValueError(f"--vocabulary: must be at least 1, not {vocabulary}")
    if device not in PEAKS:
        raise ValueError(f"--device: no peak speed is known of '{device}'; known: {', '.join(PEAKS)}")
    if not 0 < mfu <= 1:
        raise ValueError(f"--mfu: must be above 0 and at most 1, not {mfu:g}")


def estimate_arm(study: Study, ablation: str, vocabulary: int) -> tuple[RunSpec, ResourceEstimate]:
    """Return an arm's run and the estimate of its resources.

    Raises:
        ValueError: there is no such arm.
    """
    if ablation not in study.ablations:
        raise ValueError(f"--ablation: no ablation is called {ablation}; available: {', '.join(study.ablations)}")
    run = study.run(ablation, study.seeds[0])
    return run, estimate_resources(run, vocabulary, study.block_length)


def estimate_rows(run: RunSpec, estimate: ResourceEstimate, device: str, mfu: float) -> list[Row]:
    """Return one row for each quantity. GB is 10^9 bytes, GFLOP 10^9 and EFLOP 10^18 operations."""
    settings, arm = run.training, run.ablation
    rows: list[Row] = []
    for part in estimate.parts:
        rows += [(arm, part.name, "parameters", part.total, ""), (arm, part.name, "active", part.active, "")]
    total, active = sum(part.total for part in estimate.parts), sum(part.active for part in estimate.parts)
    rows += [(arm, SUMS[0], "parameters", total, ""), (arm, SUMS[0], "active", active, "")]
    rows += [(arm, what, "memory", size / 1e9, "GB") for what, size in estimate.memory.items()]
    rows.append((arm, SUMS[1], "memory", sum(estimate.memory.values()) / 1e9, "GB"))
    # every device of the table multiplies bfloat16
    precision = "bfloat16" if settings.precision == "native" else settings.precision
    peak = PEAKS[device][precision]
    seconds = estimate.device_seconds(peak, mfu)
    rows += [
        (arm, "a token, forward and backward", "operations", estimate.flops_per_token / 1e9, "GFLOP"),
        (arm, "the run", "tokens", estimate.tokens / 1e9, "billion"),
        (arm, "the run", "operations", estimate.tokens * estimate.flops_per_token / 1e18, "EFLOP"),
        (arm, f"{device}, {precision}, MFU {mfu:g}", "speed", estimate.tokens / seconds, "tokens/s"),
        (arm, f"{device}, {precision}, MFU {mfu:g}", "time", seconds / 3600, "device-hours"),
    ]
    return rows


def format_rows(rows: list[Row]) -> str:
    """Lay the rows out as text, with the arms side by side, in units that suit the largest."""
    arms = list(dict.fromkeys(row[0] for row in rows))
    keys = list(dict.fromkeys((row[2], row[1], row[4]) for row in rows))
    order = [row[2] for row in rows]
    keys.sort(key=lambda key: (order.index(key[0]), key[1] in SUMS))
    cells = {(row[0], row[2], row[1]): row[3] for row in rows}
    lines = [["", "", *arms, ""]]
    for quantity, about, unit in keys:
        values = [cells.get((arm, quantity, about)) for arm in arms]
        # the parts of a memory and their sum have one unit
        alike = [row[3] for row in rows if row[2] == quantity and (quantity == "memory" or row[1] == about)]
        printed, size = printed_unit(max(alike), unit)
        shown = [None if value is None else value / size for value in values]
        lines.append([quantity, about, *(format_number(value) for value in shown), printed])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    sides = ["<", "<", *(">" for _ in arms), "<"]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)).rstrip()
        for line in lines
    )


def printed_unit(value: float, unit: str) -> tuple[str, float]:
    """Return the largest unit of which `value` is at least one, or the smallest there is, and its size in `unit`."""
    units = UNITS.get(unit, {unit: 1.0})
    fitting = [name for name, size in units.items() if value >= size]
    name = fitting[-1] if fitting else next(iter(units))
    return name, units[name]


def format_number(value: float | None) -> str:
    """Format a large number without decimals, a small one with two, and a tiny one with three digits."""
    if value is None:
        return "-"
    if 0 < abs(value) < 0.1:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value >= 10000 else f"{value:,.2f}".removesuffix(".00")
