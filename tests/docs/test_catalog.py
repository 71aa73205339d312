"""Test what the Snakemake workflow catalog asks of a repository with standardised usage."""

import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).parents[2]


def test_the_catalogs_file_has_its_keys() -> None:
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment", "report"}
    assert usage["mandatory-flags"].keys() == {"desc", "flags"}
    deployment = usage["software-stack-deployment"]
    assert deployment.keys() == {"conda", "apptainer", "apptainer+conda"}
    assert all(isinstance(value, bool) for value in (*deployment.values(), usage["report"]))
    # what it says of the rules
    text = "".join(
        file.read_text() for file in (ROOT / "workflow").rglob("*") if file.suffix == ".smk" or file.name == "Snakefile"
    )
    assert deployment["conda"] == bool(re.search(r"^ *conda:", text, re.MULTILINE))
    assert deployment["apptainer"] == bool(re.search(r"^ *container:", text, re.MULTILINE))
    assert usage["report"] == ("report(" in text)


def test_the_files_are_where_the_catalog_looks_for_them() -> None:
    assert (ROOT / "workflow/Snakefile").is_file()
    page = (ROOT / "config/README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", page):
        assert (ROOT / "config" / target).exists(), target
