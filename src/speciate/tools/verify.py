"""Compare one run of a published study, remade, with its committed digests.

The digests say what every file was: the data, which are the same on every machine, and the run's files, which have the
same bits on processors of one family, that is of one maker and instruction set. On a family without digests, the run's
numbers must lie within the tolerances that stand beside them.

Example:
    speciate verify --results results --study default --ablation dense --digests studies/default.digests.json
"""

import argparse
import json
import math
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from speciate.cli import log
from speciate.io import atomic_write, sha256

TOLERANCES = {
    "loss": 0.02,
    "bits_per_byte": 0.01,
    "max_share": 0.01,
    "information_bits": 0.03,
    "conditional_information_bits": 0.01,
    "commitment_nats": 0.02,
}
"""Numbers of a run that are compared on another family of processors, and by how much each may differ there: about ten
times as much as between AVX2 and AVX-512 in the default study."""
KEPT = {"tokenizer.json", "measured.json"}
"""The JSON files that are results. All others are records: specs, counts, times, machines."""
KEY = re.compile(r"-[0-9a-f]{10}$")
Digests = dict[str, str]


@dataclass
class Remade:
    """What was made: the digests of the data and of the run, and the run's numbers and processor."""

    data: Digests
    run: Digests
    numbers: dict[str, float]
    family: str


@dataclass
class Verdict:
    """How what was made compares with what is committed."""

    wrong: list[str] = field(default_factory=list)
    """What differs and should not, one line each."""
    said: list[str] = field(default_factory=list)
    """What was compared, one line each."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=pathlib.Path, required=True, help="the folder `results` of the workflow")
    parser.add_argument("--study", required=True, help="the study's name")
    parser.add_argument("--ablation", required=True, help="the run's arm")
    parser.add_argument("--seed", type=int, default=0, help="the run's seed (default: %(default)s)")
    parser.add_argument("--digests", type=pathlib.Path, required=True, help="file with the committed digests, .json")
    parser.add_argument(
        "--update", action="store_true", help="write what was made into the file, for this family of processors"
    )


def main(arguments: argparse.Namespace) -> None:
    """Compare or update, and report."""
    file = arguments.digests
    # a wrong file is told before gigabytes are read
    committed = read_committed(file) if file.exists() or not arguments.update else {}
    remade = read_remade(arguments.results, arguments.study, arguments.ablation, arguments.seed)
    name = f"{arguments.study}, {arguments.ablation} seed {arguments.seed}"
    if arguments.update:
        text = json.dumps(updated(committed, remade), indent=1) + "\n"
        with atomic_write(file) as target:
            target.write_text(text, encoding="utf-8")
        log(f"{name}: wrote {file} for {remade.family}")
        return
    verdict = compare(committed, remade)
    for line in verdict.said:
        log(f"{name}: {line}")
    if verdict.wrong:
        raise ValueError("\n".join([f"{name}: not what {file} says:", *verdict.wrong]))


def read_committed(file: pathlib.Path) -> dict[str, Any]:
    """Return the committed digests. Raises ValueError if the file is none that `--update` wrote."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: is not JSON: {error}") from None
    if not isinstance(content, dict) or set(content) != {"data", "families", "numbers"}:
        raise ValueError(f"{file}: holds no data, families and numbers, as `--update` writes them")
    return content


def read_remade(results: pathlib.Path, study: str, ablation: str, seed: int) -> Remade:
    """Read what the workflow has made of one run and of its data."""
    run = results / study / "runs" / ablation / f"seed{seed}"
    measures = results / study / "measures" / ablation / f"seed{seed}"
    data = {
        data_name(file.relative_to(results / "data")): sha256(file)
        for file in sorted((results / "data").rglob("*"))
        if is_result(file) and file.relative_to(results / "data").parts[0] not in ("logs", "benchmarks")
    }
    files = [file for folder in (run, measures) for file in sorted(folder.rglob("*")) if is_result(file)]
    made = {file.relative_to(results / study).as_posix(): sha256(file) for file in files}
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (row,) = pd.read_parquet(measures / "runs.parquet").to_dict("records")
    numbers = {name: float(row[name]) for name in TOLERANCES if row.get(name) is not None and not pd.isna(row[name])}
    return Remade(data, made, numbers, family_of(facts["processor"], facts["versions"]["cpu"]))


def is_result(file: pathlib.Path) -> bool:
    """Tell whether a path is a file whose bits a study promises."""
    return file.is_file() and not file.name.startswith(".") and (file.suffix != ".json" or file.name in KEPT)


def data_name(path: pathlib.Path) -> str:
    """Return a data file's name without the key of its folder, which changes with every setting."""
    stage, folder, *rest = path.parts
    return "/".join([stage, KEY.sub("", folder), *rest])


def family_of(processor: str, instructions: str) -> str:
    """Return the maker and the instruction set that torch uses: what decides in which order sums are made."""
    maker = next((name for name in ("AMD", "Intel", "Apple", "ARM") if name.lower() in processor.lower()), processor)
    return f"{maker} {instructions}"


def updated(committed: Mapping[str, Any], remade: Remade) -> dict[str, Any]:
    """Return the committed digests with what was made; families stay for which the data are still the same."""
    same_data = committed.get("data") == remade.data
    families = dict(committed.get("families", {})) if same_data else {}
    families[remade.family] = remade.run
    numbers = {name: {"value": value, "tolerance": TOLERANCES[name]} for name, value in remade.numbers.items()}
    return {
        "data": remade.data,
        "families": dict(sorted(families.items())),
        "numbers": dict(committed["numbers"]) if same_data and len(families) > 1 else numbers,
    }


def compare(committed: Mapping[str, Any], remade: Remade) -> Verdict:
    """Compare what was made with what is committed."""
    verdict = Verdict()
    verdict.wrong += different("data", committed["data"], remade.data)
    if not verdict.wrong:
        verdict.said.append(f"{len(remade.data)} files of data: equal, bit for bit")
    known = committed["families"].get(remade.family)
    outside, largest = compare_numbers(committed["numbers"], remade.numbers)
    if known is None:
        others = ", ".join(committed["families"])
        verdict.said.append(f"{remade.family}: digests of this family of processors are not known, only of {others}")
        verdict.said.append(f"its numbers are compared; {largest}")
        verdict.wrong += outside
        return verdict
    wrong = different(remade.family, known, remade.run)
    verdict.wrong += [*wrong, f"  {largest}"] if wrong else []
    if not wrong:
        verdict.said.append(f"{remade.family}: {len(known)} files of the run: equal, bit for bit")
    return verdict


def different(what: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return a line for each file that is missing, not expected, or has other bits."""
    lines = [f"  {what}: {name} is missing" for name in wanted if name not in found]
    lines += [f"  {what}: {name} is not expected" for name in found if name not in wanted]
    return lines + [
        f"  {what}: {name} has sha256 {found[name]}, not {wanted[name]}"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]


def compare_numbers(wanted: Mapping[str, Mapping[str, float]], found: Mapping[str, float]) -> tuple[list[str], str]:
    """Return a line for each number outside its tolerance, and the largest difference in words."""
    lines: list[str] = []
    shares: dict[str, float] = {}
    for name, number in wanted.items():
        value, tolerance = found.get(name, math.nan), number["tolerance"]
        shares[name] = math.inf if math.isnan(value) else abs(value - number["value"]) / tolerance
        if shares[name] > 1:
            lines.append(f"  {name} is {value:.6g}, which is not within {tolerance:g} of {number['value']:.6g}")
    name = max(shares, key=lambda each: shares[each])
    difference, tolerance = abs(found.get(name, math.nan) - wanted[name]["value"]), wanted[name]["tolerance"]
    return lines, f"the largest difference, for its tolerance, is that of {name}: {difference:.3g} of {tolerance:g}"
