"""Estimate a study's parameters, memory, operations and device-hours.

Nothing is trained, and no weights are held: a model of many billion parameters is sized in seconds on a laptop.

Example:
    speciate size --study studies/moe_arch_5b.yaml --vocabulary 50000 --device H100
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
Row = tuple[str, str, str, float, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
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
    check(arguments.vocabulary, arguments.device, arguments.mfu)
    study = read_study(arguments.study)
    arms = {name: sized(study, name, arguments.vocabulary) for name in arguments.ablation or study.ablations}
    rows = [row for name, (run, found) in arms.items() for row in table(run, found, arguments.device, arguments.mfu)]
    print(as_text(rows))
    if arguments.output is not None:
        with atomic_write(arguments.output) as temp_path, temp_path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows)
        log(f"wrote {arguments.output}")


def check(vocabulary: int, device: str, mfu: float) -> None:
    """Raises ValueError where the command line asks for what cannot be."""
    if vocabulary < 1:
        raise ValueError(f"--vocabulary: must be at least 1, not {vocabulary}")
    if device not in PEAKS:
        raise ValueError(f"--device: no peak is known of '{device}'; of {', '.join(PEAKS)}")
    if not 0 < mfu <= 1:
        raise ValueError(f"--mfu: must be above 0 and at most 1, not {mfu:g}")


def sized(study: Study, ablation: str, vocabulary: int) -> tuple[RunSpec, ResourceEstimate]:
    """An arm's run and what it takes.

    Raises:
        ValueError: there is no such arm.
    """
    if ablation not in study.ablations:
        raise ValueError(f"--ablation: no ablation is called {ablation}; there are {', '.join(study.ablations)}")
    run = study.run(ablation, study.seeds[0])
    return run, estimate_resources(run, vocabulary, study.block_length)


def table(run: RunSpec, found: ResourceEstimate, device: str, mfu: float) -> list[Row]:
    """One row a quantity; GB and TFLOP are 10^9 and 10^12."""
    settings, arm = run.training, run.ablation
    rows: list[Row] = []
    for part in found.parts:
        rows += [(arm, part.name, "parameters", part.total, ""), (arm, part.name, "active", part.active, "")]
    total, active = sum(part.total for part in found.parts), sum(part.active for part in found.parts)
    rows += [(arm, SUMS[0], "parameters", total, ""), (arm, SUMS[0], "active", active, "")]
    rows += [(arm, what, "memory", size / 1e9, "GB") for what, size in found.memory.items()]
    rows.append((arm, SUMS[1], "memory", sum(found.memory.values()) / 1e9, "GB"))
    peak = PEAKS[device][settings.precision]
    seconds = found.device_seconds(peak, mfu)
    rows += [
        (arm, "a token, forward and backward", "operations", found.flops_per_token / 1e9, "GFLOP"),
        (arm, "the run", "tokens", found.tokens / 1e9, "billion"),
        (arm, "the run", "operations", found.tokens * found.flops_per_token / 1e18, "EFLOP"),
        (arm, f"{device}, {settings.precision}, MFU {mfu:g}", "speed", found.tokens / seconds, "tokens/s"),
        (arm, f"{device}, {settings.precision}, MFU {mfu:g}", "time", seconds / 3600, "device-hours"),
    ]
    return rows


def as_text(rows: list[Row]) -> str:
    """The rows with the arms side by side."""
    arms = list(dict.fromkeys(row[0] for row in rows))
    keys = list(dict.fromkeys((row[2], row[1], row[4]) for row in rows))
    order = [row[2] for row in rows]
    keys.sort(key=lambda key: (order.index(key[0]), key[1] in SUMS))
    cells = {(row[0], row[2], row[1]): row[3] for row in rows}
    lines = [["", "", *arms, ""]]
    for quantity, about, unit in keys:
        values = [cells.get((arm, quantity, about)) for arm in arms]
        lines.append([quantity, about, *(number(value) for value in values), unit])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    sides = ["<", "<", *(">" for _ in arms), "<"]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)).rstrip()
        for line in lines
    )


def number(value: float | None) -> str:
    """A count whole, anything small with two decimals."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10000 else f"{value:,.2f}".removesuffix(".00")
