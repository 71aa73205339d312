r"""Measure the error rates of the package's own tests and intervals.

Each is tried on data whose truth is known. The page has a section for each topic (speciate/calibration/topics.py). With
--topics only these sections are made anew, and the others of an existing page stay.

Example:
    speciate calibrate --output docs/calibration.md --topics nulls
"""

import argparse
import pathlib

from speciate.calibration import page
from speciate.calibration.topics import TOPICS
from speciate.cli import log
from speciate.io import atomic_write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=pathlib.Path, required=True, help="page to write, .md")
    parser.add_argument("--topics", nargs="+", metavar="TOPIC", help="topics to make anew (default: all)")
    parser.add_argument(
        "--effort", type=float, default=1.0, help="share of the usual number of draws (default: %(default)s)"
    )


def main(arguments: argparse.Namespace) -> None:
    """Simulate the topics, and write the page."""
    names = [topic.name for topic in TOPICS]
    unknown = [name for name in arguments.topics or () if name not in names]
    if unknown:
        raise ValueError(f"--topics: there is no topic {', '.join(unknown)}; there are {', '.join(names)}")
    if not 0 < arguments.effort <= 100:
        raise ValueError(f"--effort: must be above 0 and at most 100, not {arguments.effort:g}")
    sections: dict[str, str] = {}
    if arguments.topics and arguments.output.is_file():
        sections = page.read_sections(arguments.output.read_text(encoding="utf-8"))
    for topic in TOPICS:
        if topic.name in (arguments.topics or names):
            sections[topic.name] = page.format_section(topic, topic.tables(arguments.effort))
            log(f"{topic.name}: done")
    with atomic_write(arguments.output) as temp_path:
        temp_path.write_text(page.join_sections(sections, names), encoding="utf-8")
