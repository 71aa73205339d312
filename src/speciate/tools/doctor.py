r"""Judge anybody's routing: of a model, a run, a record, or a training's log.

SOURCE is a transformers folder or hub id, the folder of a run of a study, or files of a trace, whose format is found
by their content (docs/traces.md). A model needs `--texts`; a trace takes labels from them, joined by the documents'
names. `--against` compares two: before and after, bf16 and fp32, training and inference. `--logs` adds the log of a
training; alone, without SOURCE, it is judged by what a log can say (docs/watch.md).

What it writes lies in `--output`: doctor.html, one page that needs no network; verdict.json, for programs; and every
table as parquet and csv. `--fail-on collapsed` ends with status 3 if a layer is in that state, for a CI.

Example:
    speciate doctor allenai/OLMoE-1B-7B-0924 --texts 'texts/*.jsonl' --label domain
    speciate doctor router_trace_rank*.jsonl --experts 64
    speciate doctor checkpoint-9000 --against checkpoint-1000 --texts texts/ --fail-on collapsed
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import pathlib
import sys
from typing import Any

import pandas as pd

from speciate.analysis.routing.against import judge_against
from speciate.analysis.routing.judge import judge
from speciate.analysis.routing.judgement import STATES, TABLES, Judgement
from speciate.analysis.routing.settings import JudgeSettings
from speciate.analysis.routing.verdict_json import failing, verdict_dict
from speciate.cli import log
from speciate.data.labelled_texts import TextColumns, read_texts
from speciate.io import atomic_write
from speciate.reporting.doctor.page import write_doctor_page
from speciate.selection.routing_record import RoutingRecord
from speciate.selection.text import Text
from speciate.traces.contract import ReadOptions
from speciate.traces.read import read_trace
from speciate.traces.token_ids import read_token_ids
from speciate.traces.write import TraceWriter
from speciate.training_logs.judgement import judgement_of
from speciate.training_logs.training_log import TrainingLog, read_training_log

FOUND = 3
"""Exit status where a layer is in a state that `--fail-on` names."""
MORE_TABLES = ("knock_out_experts", "knock_out_layers", "training")
"""Tables besides those of a Judgement."""
SUFFIXES = ("parquet", "csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="*", metavar="SOURCE", help="a model, a run, or files of a trace")
    parser.add_argument("--against", nargs="+", metavar="SOURCE", help="another, to compare with")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("doctor"), help="folder (default: doctor)")
    parser.add_argument("--fail-on", nargs="+", metavar="STATE", default=[], help="end with status 3 on such a layer")
    parser.add_argument("--seed", type=int, default=0, help="seed of all draws (default: %(default)s)")
    parser.add_argument(
        "--draws", type=int, default=999, help="permutations of a null, resamples of an interval (default: %(default)s)"
    )
    parser.add_argument("--confidence", type=float, default=0.95, help="level of the intervals (default: %(default)s)")
    texts = parser.add_argument_group("texts")
    texts.add_argument("--texts", nargs="+", metavar="FILE", help="files, folders or patterns: jsonl, parquet, txt")
    texts.add_argument("--label", metavar="COLUMN", help="column with the label; a txt file has its folder's name")
    texts.add_argument("--text", metavar="COLUMN", default="text", help="column with the text (default: text)")
    texts.add_argument("--id", metavar="COLUMN", help="column with the document's name")
    texts.add_argument("--group", metavar="COLUMN", help="column of which near copies share a value: they count as one")
    models = parser.add_argument_group("models")
    models.add_argument("--tokenizer", type=pathlib.Path, help="folder of another tokenizer than the model's own")
    models.add_argument("--dtype", default="auto", help="float32, bfloat16, float16 or auto (default: auto)")
    models.add_argument(
        "--against-dtype", metavar="DTYPE", help="that of the model after --against (default: the same)"
    )
    models.add_argument("--device", default="cpu", help="such as cuda; auto spreads the model (default: cpu)")
    models.add_argument("--block-length", type=int, metavar="N", help="most tokens read at once (default: 512 or less)")
    models.add_argument("--batch-size", type=int, metavar="N", help="blocks in a forward pass (default: 8192 tokens)")
    models.add_argument("--shadows", type=int, default=4, help="random routers beside each (default: 4)")
    models.add_argument("--generate", type=int, default=0, metavar="N", help="also record N tokens after each text")
    models.add_argument("--knock-out", type=int, default=0, metavar="N", help="spend N forward passes on knock-outs")
    models.add_argument("--record", type=pathlib.Path, metavar="FILE", help="also write the routing as a trace")
    traces = parser.add_argument_group("traces")
    traces.add_argument("--format", help="format of the trace (default: found by its content)")
    traces.add_argument("--experts", type=int, metavar="E", help="experts of a router, where the trace does not say")
    traces.add_argument("--chosen", type=int, metavar="K", help="experts that a token chooses, where it does not say")
    traces.add_argument("--select", nargs="+", metavar="COLUMN=VALUE", default=[], help="read these rows only")
    traces.add_argument("--data-parallel", type=int, default=1, metavar="N", help="divide counts that N ranks added up")
    traces.add_argument("--document-length", type=int, metavar="N", help="tokens of a window in place of a text")
    traces.add_argument("--phase", help="prompt or generation, where the trace does not say which tokens are which")
    traces.add_argument("--token-ids", nargs="+", metavar="FILE", help="jsonl with the ids of each document's tokens")
    traces.add_argument("--mixture", type=pathlib.Path, metavar="FOLDER", help="texts of a run that was moved")
    traces.add_argument("--logs", nargs="+", metavar="FILE", help="training logs to show: jsonl, csv, TensorBoard")


def main(arguments: argparse.Namespace) -> None:
    """Read, judge, and write the page, the verdict and the tables."""
    unknown = [state for state in arguments.fail_on if state not in STATES]
    if unknown:
        raise ValueError(f"--fail-on: there is no state {', '.join(unknown)}; the states are {', '.join(STATES)}")
    if not arguments.source and (arguments.logs is None or arguments.against):
        raise ValueError("SOURCE: name a model, a run or the files of a trace; or training logs by --logs")
    training = _logs(arguments)
    record = other = None
    knocked_out: dict[str, pd.DataFrame] = {}
    if arguments.source:
        texts, settings = _texts(arguments), _settings(arguments)
        record, knocked_out = _read(arguments.source, arguments, texts, is_first=True)
        other = None if arguments.against is None else _read(arguments.against, arguments, texts, is_first=False)[0]
        judgement = judge(record, settings) if other is None else judge_against(record, other, settings)
    else:
        assert training is not None
        judgement = judgement_of(training)
    write_results(arguments.output, record, judgement, other=other, knocked_out=knocked_out, logs=_values_of(training))
    for note in dict.fromkeys(note.text for note in judgement.notes):
        log(f"note: {note}")
    for line in (judgement.headline, *(f"  {verdict.sentence}" for verdict in judgement.verdicts)):
        print(line)
    log(f"wrote {arguments.output / 'doctor.html'}")
    bad = failing(judgement, arguments.fail_on)
    if bad:
        print(f"{len(bad)} of {len(judgement.verdicts)} layers: {', '.join(arguments.fail_on)}", file=sys.stderr)
        raise SystemExit(FOUND)


def write_results(
    folder: pathlib.Path,
    record: RoutingRecord | None,
    judgement: Judgement,
    *,
    other: RoutingRecord | None = None,
    knocked_out: dict[str, pd.DataFrame] | None = None,
    logs: pd.DataFrame | None = None,
) -> None:
    """Write doctor.html, verdict.json, and each table as parquet and csv."""
    knocked_out = knocked_out or {}
    more = knocked_out | ({} if logs is None else {"training": logs})
    tables = {**judgement.tables, **more}
    for name in {*TABLES, *MORE_TABLES} - set(tables):  # of an earlier record in the same folder
        for suffix in SUFFIXES:
            (folder / "tables" / f"{name}.{suffix}").unlink(missing_ok=True)
    for name, table in tables.items():
        for suffix in SUFFIXES:
            with atomic_write(folder / "tables" / f"{name}.{suffix}") as temp_path:
                table.to_parquet(temp_path) if suffix == "parquet" else table.to_csv(temp_path, index=False)
    with atomic_write(folder / "verdict.json") as temp_path:
        verdict = json.dumps(verdict_dict(judgement), indent=2, ensure_ascii=False)
        temp_path.write_text(f"{verdict}\n", encoding="utf-8")
    experts = knocked_out.get("knock_out_experts")
    write_doctor_page(record, judgement, folder / "doctor.html", other=other, knock_out=experts, training_logs=logs)


def _texts(arguments: argparse.Namespace) -> list[Text] | None:
    if arguments.texts is None:
        return None
    columns = TextColumns(arguments.text, arguments.label, arguments.id, arguments.group)
    return read_texts(arguments.texts, columns)


def _settings(arguments: argparse.Namespace) -> JudgeSettings:
    if arguments.draws < 19 or not 0.5 <= arguments.confidence < 1:
        raise ValueError("--draws: must be at least 19, and --confidence at least 0.5 and below 1")
    return JudgeSettings(arguments.draws, arguments.draws, arguments.confidence, arguments.seed)


def _logs(arguments: argparse.Namespace) -> TrainingLog | None:
    if arguments.logs is None:
        return None
    return read_training_log(arguments.logs, experts=arguments.experts, chosen=arguments.chosen)


def _values_of(training: TrainingLog | None) -> pd.DataFrame | None:
    """Return the values of training logs in the columns of the page."""
    return None if training is None else training.table.assign(source=training.source)


def _read(
    words: list[str], arguments: argparse.Namespace, texts: list[Text] | None, *, is_first: bool
) -> tuple[RoutingRecord, dict[str, pd.DataFrame]]:
    """Return the record of a model or a trace, and the tables of knock-outs, if there are any."""
    if is_model(words, has_texts=texts is not None):
        if texts is None:
            raise ValueError(f"{words[0]}: is a model; name the texts that it is to read: --texts 'texts/*.jsonl'")
        return _record(words[0], arguments, texts, is_first=is_first)
    for option, value in (("--knock-out", arguments.knock_out), ("--record", arguments.record)):
        if value and is_first:
            raise ValueError(f"{option}: needs a model, and {words[0]} is a trace")
    options = ReadOptions(
        num_experts=arguments.experts,
        num_chosen=arguments.chosen,
        data_parallel=arguments.data_parallel,
        label=arguments.label,
        select=dict(_parse_select(word) for word in arguments.select),
        texts=texts,
        phase=arguments.phase or "",
        mixture=arguments.mixture,
    )
    if arguments.token_ids is not None:
        options = dataclasses.replace(options, token_ids=read_token_ids(map(pathlib.Path, arguments.token_ids)))
    if arguments.document_length is not None:
        options = dataclasses.replace(options, document_length=arguments.document_length)
    return read_trace([pathlib.Path(word) for word in words], format=arguments.format, options=options), {}


def is_model(words: list[str], *, has_texts: bool) -> bool:
    """Tell whether a source is a model to load: a folder with a config, an id on the hub, or a run with texts to read.

    The folder of a run of ours without texts is read as the record of its own probe set.
    """
    path = pathlib.Path(words[0]).expanduser()
    if len(words) > 1:
        return False
    if not path.exists():
        # an id has one slash and no suffix of a file
        return words[0].count("/") <= 1 and path.suffix.lower() not in {".jsonl", ".csv", ".parquet", ".pt", ".npz"}
    return (path / "config.json").is_file() or (has_texts and (path / "spec.json").is_file())


def _record(
    name: str, arguments: argparse.Namespace, texts: list[Text], *, is_first: bool
) -> tuple[RoutingRecord, dict[str, pd.DataFrame]]:
    """Load a model, let it read the texts, and spend forward passes on knock-outs if asked for."""
    # torch and transformers are needed for models alone
    from speciate.recording.knock_out import check_budget, knock_out
    from speciate.recording.load_model import load_model
    from speciate.recording.record_model import record_model
    from speciate.recording.sites import find_sites
    from speciate.recording.trace_sink import TraceSink

    dtype = arguments.dtype if is_first else arguments.against_dtype or arguments.dtype
    loaded = load_model(name, dtype=dtype, device=arguments.device, tokenizer=arguments.tokenizer)
    options: dict[str, Any] = {
        "block_length": arguments.block_length,
        "batch_size": arguments.batch_size,
        "seed": arguments.seed,
        "source": loaded.source,
    }
    if is_first and arguments.knock_out:
        sizes = {name: options[name] for name in ("block_length", "batch_size")}
        check_budget(loaded.model, loaded.tokenizer, texts, budget=arguments.knock_out, **sizes)
    log(f"{loaded.source}: reads {len(texts):,} texts")
    with contextlib.ExitStack() as stack:
        sinks = []
        if is_first and arguments.record is not None:
            writer = functools.partial(TraceWriter, arguments.record)
            sinks.append(stack.enter_context(TraceSink(writer, find_sites(loaded.model))))
        record = record_model(
            loaded.model,
            loaded.tokenizer,
            texts,
            shadows=arguments.shadows,
            generate=arguments.generate,
            sinks=sinks,
            **options,
        )
    if not is_first or not arguments.knock_out:
        return record, {}
    prompts = record if len(record.phases) == 1 else record.of_phase("prompt")
    found = knock_out(loaded.model, loaded.tokenizer, texts, prompts, budget=arguments.knock_out, **options)
    experts = found.experts[["path", "expert"]].drop_duplicates()
    log(f"knocked out {len(experts)} experts in {found.passes:,} forward passes; {found.left_out} are left")
    return record, {"knock_out_experts": found.experts, "knock_out_layers": found.layers}


def _parse_select(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise ValueError(f"--select: {word!r} is not of the form COLUMN=VALUE")
    return name, value
