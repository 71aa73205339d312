"""Test what every rule must have, by reading the rules."""

import re

import pytest
from tests.workflow.conftest import ROOT

RULES = {
    match[1]: match[2]
    for file in sorted((ROOT / "workflow/rules").glob("*.smk"))
    for match in re.finditer(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", file.read_text(), re.MULTILINE | re.DOTALL)
}


def test_there_are_rules() -> None:
    assert len(RULES) == 30


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_one_verb_with_log_benchmark_threads_and_resources(name: str) -> None:
    rule = RULES[name]
    # `cost` times mixers of the specs alone and `calibrate` draws its data, so no file is their input
    inputs = () if name in ("cost", "calibrate") else ("input",)
    for part in (*inputs, "output", "params", "log", "benchmark", "threads", "resources", "message", "shell"):
        assert re.search(rf"^    {part}:", rule, re.MULTILINE), part
    for resource in ("mem_mb", "runtime"):
        assert f"{resource}=" in rule
    assert re.findall(r"python -m speciate (\w+)", rule) == [name]
    assert re.search(r"code=(lambda wildcards: digest|digest|code_of|code_of_runs)\(", rule)
    # a training survives a signal to its whole group, so the process that it writes to must survive it too
    # (tests/training/distributed/test_signalled.py)
    tee = "(trap '' INT TERM USR1; exec tee -a {log} >&2)" if name == "train" else "tee -a {log} >&2"
    assert f' 2>&1 | {tee}"' in rule
    assert (ROOT / f"src/speciate/stages/{name}.py").is_file()


def test_a_training_that_was_stopped_is_continued_whatever_the_profile_says() -> None:
    retries = re.search(r"^    retries: (\d+) if workflow.is_main_process else 0$", RULES["train"], re.MULTILINE)
    assert retries is not None
    assert int(retries[1]) >= 1


def test_nothing_asks_for_a_number_of_cores_which_a_cluster_does_not_have() -> None:
    # Snakemake's `workflow.cores` is an error where the profile gives a number of jobs instead
    for file in (ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk"), ROOT / "workflow/Snakefile"):
        assert "workflow.cores" not in file.read_text(), file
