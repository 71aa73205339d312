"""The table of data stages: what each file of `stages/` declares as its `STAGE`, in the order in which they run."""

import functools
import graphlib

from speciate.config.definitions import PACKAGE, run_definitions
from speciate.config.stage import Stage


@functools.cache
def data_stages() -> dict[str, Stage]:
    """Return every data stage by its verb, each after those that it reads."""
    files = sorted((PACKAGE / "stages").glob("[!_]*.py"))
    verbs = [file.stem for file in files if "\nSTAGE = Stage(" in file.read_text(encoding="utf-8")]
    rows: dict[str, Stage] = {
        verb: run_definitions(f"speciate.stages.{verb}", "Spec", "STAGE")["STAGE"] for verb in verbs
    }
    order = graphlib.TopologicalSorter({verb: list(row.reads) for verb, row in rows.items()}).static_order()
    return {verb: rows[verb] for verb in order}
