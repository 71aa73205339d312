"""Problems whose answers are programs, as HumanEval writes them, and the estimate of pass@k.

    pass@k = 1 - C(n - c, k) / C(n, k),   n programs for a problem, c of them right   (Chen et al. 2021, equation 1)

It is unbiased: the mean over all sets of k of the n programs, each set passing if one of its programs does.
"""

import gzip
import json
import math
import pathlib
import zipfile
import zlib
from dataclasses import dataclass

STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Where HumanEval cuts a completion (Chen et al. 2021, section 2)."""
FIELDS = ("task_id", "prompt", "test", "entry_point")


@dataclass(frozen=True)
class Problem:
    """One problem: its name, the start of the program, and the tests of the function that it is to define."""

    task_id: str
    prompt: str
    test: str
    entry_point: str


def read_problems(file: pathlib.Path) -> list[Problem]:
    """Read problems, a JSON object a line.

    Args:
        file: .jsonl, .jsonl.gz, or a zip or wheel that holds one of these.

    Raises:
        ValueError: the file cannot be read, a line is no problem, or there is none; the message names file and line.
    """
    problems: dict[str, Problem] = {}
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if line.strip():
            problem = _problem(line, f"{file}, line {number}")
            if problem.task_id in problems:
                raise ValueError(f"{file}, line {number}: task_id '{problem.task_id}' is there twice")
            problems[problem.task_id] = problem
    if not problems:
        raise ValueError(f"{file}: holds no problem")
    return list(problems.values())


def _text(file: pathlib.Path) -> str:
    name, data = file.name, file.read_bytes()
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                names = [name for name in archive.namelist() if name.endswith((".jsonl", ".jsonl.gz"))]
                if len(names) != 1:
                    raise ValueError(f"{file}: holds {len(names)} files of JSON lines, and must hold one")
                name, data = names[0], archive.read(names[0])
        return (gzip.decompress(data) if name.endswith(".gz") else data).decode()
    except (gzip.BadGzipFile, zlib.error, zipfile.BadZipFile, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None


def _problem(line: str, where: str) -> Problem:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: is no JSON: {error}") from None
    for field in FIELDS:
        if not isinstance(row, dict) or not isinstance(row.get(field), str):
            raise ValueError(f"{where}: has no text under '{field}'; a problem has {', '.join(FIELDS)}")
    if not row["entry_point"].isidentifier():
        raise ValueError(f"{where}: entry_point: '{row['entry_point']}' is no name of a function")
    return Problem(*(row[field] for field in FIELDS))


def pass_at_k(num_programs: int, num_right: int, k: int) -> float:
    """Return the unbiased estimate of the probability that one of k programs is right.

    Args:
        num_programs: programs that were run, n.
        num_right: programs that passed, c.
        k: from 1 to n.
    """
    assert 0 <= num_right <= num_programs and 1 <= k <= num_programs
    return 1.0 - math.comb(num_programs - num_right, k) / math.comb(num_programs, k)
