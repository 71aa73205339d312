"""Read the training logs of other programs, and say what they tell of routing.

Reads TensorBoard's event files, JSON lines and CSV with the routing metrics of torchtitan, Megatron-LM, OLMo-core,
verl, NeMo Automodel, TRL or `speciate.watch`, and converts them to one definition: MaxVio, effective experts / E,
coefficient of variation, dead share, by step and layer. Without --experts and --chosen no limit of collapse is known.

Example:
    speciate training_logs --logs runs/tensorboard --experts 64 --chosen 8 --output routing
"""

import argparse
import pathlib

from speciate.cli import log
from speciate.io import atomic_write
from speciate.training_logs.chart import draw
from speciate.training_logs.training_log import read_training_log
from speciate.training_logs.verdict import headline, judge


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--logs", nargs="+", required=True, type=pathlib.Path, metavar="FILE", help="files or folders of one training"
    )
    parser.add_argument("--experts", type=int, metavar="E", help="number of experts of a layer")
    parser.add_argument("--chosen", type=int, metavar="K", help="number of experts that a token chooses")
    parser.add_argument("--output", type=pathlib.Path, metavar="FOLDER", help="write metrics.csv and chart.svg here")


def main(arguments: argparse.Namespace) -> None:
    """Read the logs, print the verdicts, and write the table and the chart."""
    read = read_training_log(arguments.logs, experts=arguments.experts, chosen=arguments.chosen)
    for note in read.notes:
        log(f"note: {note.text}")
    for key, reason in read.unconverted.items():
        log(f"not converted: {key}: {reason}")
    if read.unknown:
        log(
            f"unknown: names that look like routing metrics, and that nobody is known to log: {', '.join(read.unknown)}"
        )
    verdicts = judge(read)
    print(headline(read, verdicts))
    for verdict in verdicts:
        print(f"{verdict.phase}: {verdict.sentence}")
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        with atomic_write(arguments.output / "metrics.csv") as target:
            read.table.to_csv(target, index=False)
        with atomic_write(arguments.output / "chart.svg") as target:
            draw(read, target)
