"""Compare what made a run, as the run itself recorded it, with what would make it now.

Snakemake's own records are in `.snakemake`, which may be gone (`make clean`, a copied folder), and they tell what was
planned. A run writes into run.json what it really used: `made_by.spec`, the digest of its spec, and `made_by.code`, the
digest of the code that it imported. A difference makes the run stale.
"""

import json
import pathlib
from typing import Any

from speciate.graph.provenance import made_by
from speciate.graph.study_graph import StudyGraph

WORDS = {"spec": "another spec", "code": "other code"}


def recorded(folder: pathlib.Path) -> dict[str, Any]:
    """Return what a finished run recorded; empty where there is no finished run, or one from before such records."""
    try:
        content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    record = content.get("made_by") if isinstance(content, dict) else None
    return record if isinstance(record, dict) else {}


def differences(graph: StudyGraph) -> dict[str, str]:
    """Return a message for each finished run of the study that something else has made, by its weights' path."""
    found: dict[str, str] = {}
    for ablation in graph.study.ablations:
        for seed in graph.study.seeds:
            folder = graph.run_folder(ablation, seed)
            record = recorded(folder)
            if not record:
                continue
            wanted = made_by(graph.run(ablation, seed))
            others = [f"{WORDS[name]} ({record.get(name)}, not {wanted[name]})" for name in WORDS
                      if record.get(name) != wanted[name]]  # fmt: skip
            if others:
                found[str(folder / "model.safetensors")] = (
                    f"{ablation} seed {seed} is trained again: its weights were made with {' and '.join(others)}"
                )
    return found
