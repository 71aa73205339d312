"""Fill an explorer from a finished study: what its runs chose on the probe set, while they trained and at the end.

Every run was observed on the same texts. The finished models were observed on the whole probe set, and earlier steps on
a prefix of it with as many blocks of each domain. What does not fit is left out, and the page says so.

Shape suffixes: B blocks of T tokens, P positions of the probe set, M tokens that are shown, J chosen keys.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from speciate.config.stage_specs import ExploreSpec
from speciate.reporting import formats, page
from speciate.reporting.explorer.data import ExplorerData
from speciate.reporting.explorer.study_files import (
    Arrays,
    Files,
    Generated,
    KeyArrays,
    Probe,
    Run,
    generated,
    has_keys,
    most_chosen,
    name_of,
    paths_of,
    read_arrays,
    read_probe,
)
from speciate.reporting.explorer.study_layers import Sources, model_of

OF_FINISHED = 0.6
"""Share of the choices in the page that finished models may take; the rest is for earlier steps."""
OF_KEYS = 0.25
"""Bytes that single keys of sparse attention may take besides, as a share of these."""
TABLES = ("experts", "selectors", "runs", "interventions", "details")
"""The study's tables that are read."""


def from_study(
    spec: ExploreSpec, files: Files, pieces: Callable[[Sequence[int]], list[str]], keys: Callable[[Run], KeyArrays]
) -> ExplorerData:
    """Return the explorer of a finished study.

    Args:
        spec: its runs.
        files: where its files are.
        pieces: token ids -> the text of each.
        keys: the keys that an indexer of sparse attention chose; asked only for runs that have one.

    Raises:
        ValueError: a file cannot be read, or a run was observed on another probe set; names the file or run.
    """
    found = {run: read_arrays(files.runs, run, "probe") for run in runs_in_order(spec)}
    shown = {run: arrays for run, arrays in found.items() if paths_of(arrays)}
    finished, with_steps, num_blocks = plan(spec, files, shown)
    probe = read_probe(files.mixture, num_blocks)
    tables = page.read_tables(files.tables, TABLES)
    keyed = [run for run in finished if run[1] == spec.seeds[0] and has_keys(shown[run])]
    room = int(spec.most_choices * OF_KEYS) // max(1, len(keyed))
    known = {run: some_keys(keys(run), room, probe) for run in keyed}
    sources = Sources(files, tables, known, with_steps)
    models = [model_of(spec, run, shown[run], probe, sources=sources) for run in finished]
    texts = list(generated(tables["details"], finished, spec))
    ids = np.concatenate([probe.token_M, *(text.token_M for text in texts)])
    order_P = np.concatenate([np.full(len(probe.token_M), -1), *(text.order_M for text in texts)])
    used = [int(token) for token in np.unique(ids)]
    return ExplorerData(
        title=f"{formats.plain_name(spec.study)}: what each selector chooses, token by token",
        documents=(*probe.documents, *(text.document for text in texts)),
        token_P=ids,
        pieces=dict(zip(used, pieces(used), strict=True)),
        models=tuple(models),
        order_P=order_P if texts else None,
        aligned=False,
        notes=tuple(notes(spec, found, texts)),
        left_out=tuple(left_out(probe, list(shown), finished, with_steps)),
    )


def runs_in_order(spec: ExploreSpec) -> list[Run]:
    """Return the runs, the first seed of every arm first: these are kept if not all can be."""
    return [(arm.name, seed) for seed in spec.seeds for arm in spec.arms]


def plan(spec: ExploreSpec, files: Files, shown: Mapping[Run, Arrays]) -> tuple[list[Run], set[Run], int]:
    """Return the runs whose finished models are shown, those of them whose steps are, and on how many blocks.

    One seed of every arm comes first, on as much text as fits; then further seeds, and steps in the same order.
    """
    document_BT = np.load(files.mixture / "probe.document.npy", mmap_mode="r")
    per_token = {
        run: sum(most_chosen(arrays[f"{path}/choice"]) for path in paths_of(arrays)) for run, arrays in shown.items()
    }
    first = sum(width for (_, seed), width in per_token.items() if seed == spec.seeds[0])
    room = int(spec.most_choices * OF_FINISHED)
    domains = max(1, len(json.loads((files.mixture / "mixture.json").read_text(encoding="utf-8"))["labels"]))
    blocks = min(len(document_BT), room // max(1, first * document_BT.shape[1]))
    blocks = max(domains, blocks - blocks % domains)
    finished: list[Run] = []
    for run, width in per_token.items():
        if width * blocks * document_BT.shape[1] <= room or not finished:
            finished.append(run)
            room -= width * blocks * document_BT.shape[1]
    room += spec.most_choices - int(spec.most_choices * OF_FINISHED)
    with_steps: set[Run] = set()
    for run in finished:
        early = read_arrays(files.runs, run, "telemetry")
        size = sum(int(np.prod(early[f"{path}/choice"].shape[:2])) * width_of(early, path) for path in paths_of(early))
        if size <= room:
            with_steps.add(run)
            room -= size
    return finished, with_steps, blocks


def width_of(early: Arrays, path: str) -> int:
    """Return the largest number of slots that a token chose at any check, from its packed bits."""
    bits_KPB = early[f"{path}/choice"]
    return max(1, int(np.bitwise_count(bits_KPB.astype(np.uint8)).sum(axis=2).max(initial=1)))


def some_keys(keys: KeyArrays, room: int, probe: Probe) -> KeyArrays:
    """Return the keys on as many blocks as fit into `room` bytes; -1 stands for those of the others."""
    if not keys:
        return {}
    per_token = sum(back_PJ.shape[1] * (1 if back_PJ.max(initial=0) < 255 else 2) for back_PJ in keys.values())
    blocks = max(1, room // (per_token * probe.block_length))
    is_shown_P1 = np.arange(len(next(iter(keys.values()))))[:, None] < blocks * probe.block_length
    return {path: np.where(is_shown_P1, back_PJ, np.int16(-1)) for path, back_PJ in keys.items()}


def notes(spec: ExploreSpec, found: Mapping[Run, Arrays], texts: Sequence[Generated]) -> Iterator[str]:
    """Yield sentences that say what the texts are."""
    yield (
        "The texts are the study’s probe set, which no run was trained on. Seeds number their experts at random: with"
        " two runs side by side, experts are matched by the tokens that they share."
    )
    without = sorted({run[0] for run, arrays in found.items() if not paths_of(arrays)}, key=str)
    if without:
        yield f"Without a selector, or without a finished run, so not here: {formats.join_names(without)}."
    if any(has_keys(arrays) for arrays in found.values()):
        yield (
            "Single keys of sparse attention are those of the finished models of the first seed, on the first blocks;"
            " elsewhere the ranges of distance of the chosen keys are shown."
        )
    if texts:
        yield (
            "The last texts were generated by filling masks; the stronger a token’s colour, the later its mask was"
            " lifted."
        )


def left_out(probe: Probe, runs: list[Run], finished: list[Run], with_steps: set[Run]) -> Iterator[str]:
    """Yield sentences that say what the page leaves out."""
    if probe.num_blocks < probe.all_blocks:
        yield f"To keep the page small it shows {probe.num_blocks} of the {probe.all_blocks} blocks of the probe set."
    if missing := [run for run in runs if run not in finished]:
        yield f"{len(missing)} of {formats.pluralise(len(runs), 'run')} are left out: {_several(missing)}."
    if missing := [run for run in finished if run not in with_steps]:
        yield f"Earlier steps are left out of {formats.pluralise(len(missing), 'run')}: {_several(missing)}."
    if with_steps:
        yield "Earlier steps were observed on the first blocks of each domain only."


def _several(runs: Sequence[Run]) -> str:
    names = [name_of(run) for run in runs[:6]]
    return "; ".join(names) + (f"; and {len(runs) - 6} more" if len(runs) > 6 else "")
