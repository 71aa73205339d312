"""Define what can be wrong with a routing record that somebody else's program wrote, and what is noted of one."""

import json
import pathlib
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tests.bad_input.case import Case, Place
from tests.bad_input.small import Command

AREA = "Traces"
MEGATRON = {"step": 0, "stage": "pre_dispatch", "block": "decoder", "layer": 0, "rank": 0}
TRACE = "router_trace_rank0.jsonl"


OPTIONS = {"num_experts": "--experts", "num_chosen": "--chosen", "data_parallel": "--data-parallel", "label": "--label"}


def told(make: Callable[[Place], Command], **options: Any) -> Callable[[Place], Command]:
    """Return how a command is made that is told what the trace does not say."""

    def with_options(place: Place) -> Command:
        words = (word for name, value in options.items() for word in (OPTIONS[name], str(value)))
        command = make(place)
        return Command(command.verb, (*command.arguments, *words, "--draws", "19"))

    return with_options


def megatron(*changes: dict[str, Any], cut: int = 0, rank: int = 0) -> Callable[[Place], Command]:
    """Return the command about a router trace of Megatron-Core, a line for each set of changed keys."""
    rng = np.random.default_rng(rank)
    choices = rng.permuted(np.tile(np.arange(6), (40, 1)), axis=1)[:, :2].tolist()
    line = MEGATRON | {"rank": rank, "num_tokens": 40, "topk": 2, "top_indices": choices}

    def make(place: Place) -> Command:
        text = "".join(json.dumps(line | change) + "\n" for change in changes or ({},))
        (place.folder / TRACE).write_text(text[: -1 - cut] if cut else text)
        return Command("doctor", (TRACE,))

    return make


def two_ranks(place: Place) -> Command:
    megatron({}, {"layer": 1})(place)
    text = (place.folder / TRACE).read_text()
    (place.folder / "router_trace_rank1.jsonl").write_text(text.replace('"rank": 0', '"rank": 1'))
    return Command("doctor", (TRACE, "router_trace_rank1.jsonl"))


def lines(name: str, *objects: dict[str, Any]) -> Callable[[Place], Command]:
    """Return the command about a file of json lines."""

    def make(place: Place) -> Command:
        (place.folder / name).parent.mkdir(exist_ok=True)
        (place.folder / name).write_text("".join(json.dumps(each) + "\n" for each in objects))
        return Command("doctor", (name,))

    return make


def file(name: str, content: str | bytes) -> Callable[[Place], Command]:
    """Return the command about a file with this content."""

    def make(place: Place) -> Command:
        (place.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return Command("doctor", (name,))

    return make


def parquet(cut: int = 0, **columns: list[Any]) -> Callable[[Place], Command]:
    """Return the command about a trace in Speciate's own format: two documents of two tokens, one layer, k = 2."""
    given = {
        "document": ["a"] * 4 + ["b"] * 4,
        "position": [0, 0, 1, 1] * 2,
        "layer": [0] * 8,
        "rank": [0, 1] * 4,
        "expert": [3, 1, 2, 0, 1, 0, 3, 2],
    }

    def make(place: Place) -> Command:
        pq.write_table(pa.table(given | columns), path := place.folder / "trace.parquet")
        path.write_bytes(path.read_bytes()[: -cut or None])
        return Command("doctor", ("trace.parquet",))

    return make


def npz(place: Place) -> Command:
    ragged = np.empty(2, dtype=object)
    ragged[:] = [[1, 2], [3]]
    np.savez(place.folder / "request.npz", routed_experts=ragged)
    return Command("doctor", ("request.npz",))


def ranks_of_counts(place: Place) -> Command:
    for rank in range(2):
        counts = {"iter": 1, "block": "decoder", "layer": 0, "tpe": [[3 + rank, 4]]}
        lines(f"rank{rank}.jsonl", counts)(place)
    return Command("doctor", ("rank0.jsonl", "rank1.jsonl"))


def sglang(place: Place) -> Command:
    import torch

    records = [{"forward_pass_id": 0, "forward_mode": 1, "topk_ids_of_layer": torch.zeros(1, 2, 8)}]
    torch.save({"records": records, "server_args": pathlib.PurePosixPath("a")}, place.folder / "recorder_0.pt")
    return Command("doctor", ("recorder_0.pt",))


def two(first: dict[str, list[Any]], second: dict[str, list[Any]]) -> Callable[[Place], Command]:
    """Return the command about two parquet traces that are compared."""

    def make(place: Place) -> Command:
        for name, columns in (("before", first), ("after", second)):
            pq.write_table(pa.table(columns), place.folder / f"{name}.parquet")
        return Command("doctor", ("before.parquet", "--against", "after.parquet"))

    return make


def tokens(layer: int = 0, document: str = "a", token: int = 5) -> dict[str, list[Any]]:
    """Return a trace of four tokens that choose one of three experts."""
    return {
        "layer": [layer] * 4,
        "document": [document] * 4,
        "position": [0, 1, 2, 3],
        "token": [token] * 4,
        "rank": [0] * 4,
        "expert": [0, 1, 2, 0],
    }


def case(wrong: str, make: Callable[[Place], Command], says: str, **options: Any) -> Case:
    return Case(AREA, wrong, told(make, **options), says)


def noted(wrong: str, make: Callable[[Place], Command], says: str, **options: Any) -> Case:
    """Return a case that is no error: the note, of some kind, is one line among others."""
    _, text = says.split(": ", 1)
    return Case(AREA, wrong, told(make, **options), f"note: {text}", status=0)


COUNTS = "layer,label,expert,count\n"
SAME = " the same tokens were recorded twice (by ranks that share them?), or k is wrong"
CASES = [
    case("a trace is empty", file("trace.jsonl", ""), "trace.jsonl: is empty"),
    case(
        "a file is no trace of any format",
        file("notes.txt", "hello\n"),
        "notes.txt: is no trace that can be read. What was looked for:\n"
        "  counts: WHY\n  jsonl: WHY\n  layer_expert: WHY\n  megatron: WHY\n  megatron_counts: WHY\n  parquet: WHY\n"
        "  run: WHY\n  sglang: WHY\n  vllm: WHY",
    ),
    case(
        "a trace is a pickle",
        file("trace.pkl", pickle.dumps([1, 2])),
        "trace.pkl: is a pickle, which is never loaded since it can run code; save numbers alone",
    ),
    case(
        "an npz holds a pickle",
        npz,
        "request.npz: holds a pickle, which is never loaded since it can run code; save numbers alone",
    ),
    case(
        "a torch file holds other objects",
        sglang,
        "recorder_0.pt: holds other objects than tensors and plain values, which are never loaded since they can run"
        " code",
    ),
    case(
        "a line of a trace is broken",
        file("trace.jsonl", '{"layer": 0, "indices": [1]}\n{"layer": 0, "ind\n{"layer": 0, "indices": [2]}\n'),
        "trace.jsonl, line 2: is not JSON (WHY); the file is damaged or not a trace",
    ),
    noted(
        "the last line of a trace is cut off",
        megatron({}, {"layer": 1}, cut=7),
        "truncated: router_trace_rank0.jsonl, line 2 is cut off and was left out: the writer was stopped, and what"
        " followed is lost.",
        num_experts=6,
    ),
    case(
        "a parquet trace is cut off",
        parquet(cut=20),
        "trace.parquet: is damaged or cut off: WHY",
    ),
    case(
        "a record says another k than it has",
        megatron({"topk": 8}),
        "router_trace_rank0.jsonl, line 1: top_indices are 40 x 2, but num_tokens is 40 and topk is 8",
    ),
    case(
        "a trace has another k than the user says",
        megatron(),
        "router_trace_rank0.jsonl, line 1: decoder.layers.0.mlp.router has 2 experts a token, but --chosen says 8",
        num_chosen=8,
    ),
    case(
        "k changes within a trace",
        lines("trace.jsonl", {"layer": 0, "indices": [1, 2]}, {"layer": 0, "indices": [1, 2, 3]}),
        "trace.jsonl, line 2: layer 0 has 3 experts a token, and 2 before it; a layer's k is the same throughout a"
        " trace",
    ),
    case(
        "a token chooses an expert twice",
        lines("trace.jsonl", {"layer": 0, "indices": [[1, 2, 3], [4, 5, 4]]}),
        "trace.jsonl, line 1: a token of layer 0 chooses an expert twice (4, 5, 4): k is wrong, or the axes of layers"
        " and choices are exchanged",
    ),
    case(
        "an expert's id is out of range, as physical ids are",
        megatron(),
        "router_trace_rank0.jsonl, line 1: expert 5 of decoder.layers.0.mlp.router is out of range: the router has 4"
        " experts; a wrong number of experts, or physical ids of experts that the server holds twice",
        num_experts=4,
    ),
    case(
        "an expert's id overflowed",
        lines("trace.jsonl", {"layer": 0, "indices": [[1, 2], [3, 65535]]}),
        "trace.jsonl, line 1: expert 65535 of layer 0 is out of range: no router has 8192 experts; a number that"
        " overflowed, or a mark for what was not recorded",
    ),
    case(
        "there are more rows than tokens, as of drafts that were rejected",
        lines("vllm.jsonl", {"token_ids": [7, 8], "routed_experts": [[[0, 1]]] * 5, "prompt_token_ids": [1]}),
        "vllm.jsonl, line 1: prompt and generation: 5 tokens with experts, but 3 tokens; drafts that were rejected may"
        " be among them",
    ),
    case(
        "one decision is in a trace twice",
        parquet(position=[0, 0, 0, 0, 0, 0, 1, 1]),
        "trace.parquet, row group 0: layer 0, document 'a', position 0 has 4 choices, but k is 2:" + SAME,
    ),
    case(
        "a trace's column has no whole numbers",
        parquet(expert=[0.5] * 8),
        "trace.parquet: column expert has the type double, but must be of whole numbers",
    ),
    case(
        "a trace has no such column for the labels",
        parquet(),
        "trace.parquet: has no column 'topic' for the label; it has document, expert, layer, position, rank",
        label="topic",
    ),
    case(
        "counts by rank do not say whether ranks have experts of their own",
        ranks_of_counts,
        "rank0.jsonl, rank1.jsonl: each rank counts the tokens of its own 2 experts, and nothing says whether other"
        " ranks have others; give --experts",
    ),
    case(
        "the files of some ranks are missing",
        ranks_of_counts,
        "rank0.jsonl, rank1.jsonl: 2 ranks with 2 experts each do not make up --experts 8; files of ranks are"
        " missing, or --experts is wrong",
        num_experts=8,
    ),
    case(
        "a table of counts has no count",
        file("counts.csv", COUNTS + "0,a,0,5\n0,a,1,many\n"),
        "counts.csv, line 3: count is 'many', not a whole number >= 0",
    ),
    case(
        "a table of counts holds several records",
        file("counts.csv", "model," + COUNTS + "m,0,a,0,5\nn,0,a,0,6\n"),
        "counts.csv: column model has several values, which are not one record: select one of m, n, or remove the"
        " column",
    ),
    case(
        "counts are no multiples of the ranks that were added up",
        file("counts.csv", COUNTS + "0,a,0,5\n0,a,1,6\n"),
        "counts.csv: not all counts are multiples of --data-parallel 2, so they were not multiplied by it",
        data_parallel=2,
    ),
    noted(
        "counts are those of ranks that saw the same tokens",
        file("counts.csv", COUNTS + "".join(f"0,a,{expert},{8 * (expert + 1)}\n" for expert in range(12))),
        "counts_multiplied: All counts are multiples of 8: they may be sums over 8 ranks that saw the same tokens, or"
        " padded. Then intervals are too narrow; give --data-parallel if ranks were added up.",
    ),
    noted(
        "ranks that share their tokens recorded each",
        two_ranks,
        "duplicated_ranks: Ranks that share their tokens recorded each (router_trace_rank1.jsonl repeats"
        " router_trace_rank0.jsonl); what is there more than once was counted once.",
    ),
    noted(
        "a trace does not tell prompt from generation",
        megatron(),
        "mixed_phases: The trace does not tell prompt from generation, nor inference from training; give --phase if"
        " all tokens have one.",
    ),
    noted(
        "a trace does not say how many experts there are",
        megatron(),
        "num_experts_guessed: The trace does not say how many experts there are; the largest id that occurs was taken"
        " as the last. Experts after it that no token chose would be missed: give --experts.",
    ),
    noted(
        "a layer between others is missing",
        megatron({}, {"layer": 2}),
        "missing_layers: There is nothing of layer 1, which lies between layers that were recorded: it has no router,"
        " or was not recorded.",
    ),
    noted(
        "files number their layers differently",
        lines("trace.jsonl", *({"layer": layer, "indices": [1]} for layer in (0, 1, 2, 1, 2, 3))),
        "uneven_layers: Layers have different numbers of tokens: most have 2, but layer 0 (1), layer 3 (1). Tokens of a"
        " layer may be missing, or files or ranks number their layers differently.",
    ),
    noted(
        "ids were stored in eight bits",
        lines("trace.jsonl", {"layer": 0, "indices": [[expert % 256] for expert in range(512)]}),
        "narrow_ids: No expert of layer 0 is above 255, though there are more: ids that were stored in 8 bits come out"
        " as those of other experts.",
        num_experts=512,
    ),
    noted(
        "a writer filled what it did not record with zeros",
        lines("trace.jsonl", {"layer": 0, "indices": [[1, 2], [0, 0]]}),
        "not_recorded: 1 decision names expert 0 k times, as a writer fills what it did not record (a layer without a"
        " router, a cached prefix); such were left out.",
    ),
    case(
        "two records have no layer in common",
        two(tokens(), tokens(layer=3)),
        "before.parquet and after.parquet have no layer in common, by path or by number: layer 0 against layer 3",
    ),
    case(
        "two records have layers of different sizes",
        two(tokens(), tokens() | {"expert": [0, 1, 4, 0]}),
        "layer 0: before.parquet has 3 experts, after.parquet has 5; layers of different sizes cannot be compared",
    ),
    case(
        "two records have no document in common",
        two(tokens(), tokens(document="b")),
        "before.parquet and after.parquet have no document in common: a against b; compare records of the same texts",
    ),
    case(
        "two records are of other tokens",
        two(tokens(), tokens(token=6)),
        "before.parquet and after.parquet: 100.0 % of the tokens at the same document and position have another id;"
        " compare records of the same tokens",
    ),
]
