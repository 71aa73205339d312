"""Test that another workflow can use this one as a module, and gets the same files."""

import pathlib
import shutil
from collections.abc import Mapping

import pytest
from tests.cluster.clone import Clone

pytestmark = pytest.mark.cluster
SNAKEFILE = "workflow/Snakefile"
# a workflow of somebody else's, which takes every rule under a prefix and adds one of its own
OTHER = """
configfile: "{study}"


module speciate:
    snakefile:
        "{snakefile}"
    config:
        config


use rule * from speciate as speciate_*


rule count:
    input:
        rules.speciate_all.input,
    output:
        "counted.txt",
    default_target: True
    shell:
        "ls {{input}} | wc -l > {{output}}"
"""


def test_another_workflow_imports_every_rule_under_a_prefix(
    tiny: Clone, work: pathlib.Path, expected: Mapping[str, str]
) -> None:
    folder = work / "module"
    folder.mkdir()
    shutil.copytree(tiny.folder / "texts", folder / "texts")
    text = OTHER.format(study=tiny.folder / tiny.study, snakefile=tiny.folder / SNAKEFILE)
    (folder / "Snakefile").write_text(text)
    other = Clone(folder, str(tiny.folder / tiny.study))
    other.run("--cores", "2")
    assert other.digests() == expected
    assert int((folder / "counted.txt").read_text()) > 50
    assert "Nothing to be done" in other.run("--cores", "2")


def test_another_workflow_can_change_one_rule_of_the_module(tiny: Clone, work: pathlib.Path) -> None:
    folder = work / "module-changed"
    folder.mkdir()
    shutil.copytree(tiny.folder / "texts", folder / "texts")
    text = OTHER.format(study=tiny.folder / tiny.study, snakefile=tiny.folder / SNAKEFILE)
    changed = "use rule train from speciate as speciate_train with:\n    threads: 2\n"
    (folder / "Snakefile").write_text(text.replace("rule count:", f"{changed}\n\nrule count:"))
    said = Clone(folder, str(tiny.folder / tiny.study)).run("--dry-run", "--cores", "2")
    assert "speciate_train" in said and "count" in said
