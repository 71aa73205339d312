"""Run a small study through every data stage: the command lines of its stages, in order, and a way to run one here.

All paths are relative, so a folder with its results can be copied, spoiled, and run again.
"""

import contextlib
import functools
import io
import json
import os
import pathlib
import random
import re
import signal
import types
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from speciate import cli
from speciate.config.extends import extend
from speciate.config.study import parse_study, read_study
from speciate.graph.study_graph import StudyGraph

ROOT = pathlib.Path(__file__).parents[2]
PATIENCE = 60
"""Seconds after which a stage that runs here counts as hanging."""


@dataclass(frozen=True)
class Command:
    """Hold one stage's command line, as the workflow calls it."""

    verb: str
    arguments: tuple[str, ...]

    def changed(self, **values: str) -> "Command":
        """Return the same command with other values of some options, such as output_folder."""
        given = list(self.arguments)
        for name, value in values.items():
            given[given.index(f"--{name.replace('_', '-')}") + 1] = value
        return Command(self.verb, tuple(given))


@dataclass(frozen=True)
class Ended:
    """Describe how a command ended."""

    status: int
    errors: tuple[str, ...]
    """The command's messages, without `speciate VERB: error: `."""
    said: str
    """All of standard error."""


def text_of(seed: int, words: int) -> str:
    """Return a text that shares no run of words with another seed's."""
    draw = random.Random(seed)
    return " ".join(f"w{draw.randrange(10**5)}" for _ in range(words))


def corpus(folder: pathlib.Path) -> None:
    """Write the corpus. code: 24 texts in two files, two of them nearly equal; prose: 20 texts."""
    code = [f"x = {seed}\n# {text_of(seed, 60)}" for seed in range(24)]
    code[20] = code[3] + " more"
    prose = [text_of(1000 + seed, 60) for seed in range(20)]
    (folder / "corpus").mkdir(parents=True)
    for name, texts in {"code0": code[::2], "code1": code[1::2], "prose": prose}.items():
        lines = [json.dumps({"text": text}) + "\n" for text in texts]
        (folder / "corpus" / f"{name}.jsonl").write_text("".join(lines))


def settings() -> dict:
    """Return the study file as plain data."""
    change = {
        "study": "small",
        "tokenizer": {"kind": "bpe", "entries": 280},
        "block_length": 32,
        "split": {"validation": 0.15, "test": 0.2, "probe": 0.15},
        "held_out": {"validation_blocks": 2, "test_blocks": 2, "probe_blocks": 2},
    }
    study = extend({**change, "extends": str(ROOT / "studies/three_selectors.yaml")}, ROOT)
    files = {name: {name: {"kind": "files", "paths": [f"corpus/{name}*.jsonl"]}} for name in ("code", "prose")}
    study["domains"] = {
        "code": {"sources": files["code"], "shards": 2, "duplicates": "near", "language": "python"},
        "prose": {"sources": files["prose"], "filters": [{"kind": "length", "min_characters": 20}]},
    }
    return study


def plan() -> StudyGraph:
    """Return the study's graph, which writes to `results` in the process's working folder."""
    return StudyGraph(parse_study(settings(), "small.yaml"), pathlib.Path("results"))


def commands(of: StudyGraph) -> Iterator[Command]:
    """Return the command lines of all data stages, in an order in which they can run."""
    domains, at = list(of.study.domains), of.folder

    def stage(name: str, unit: str, *arguments: object, below: str = "", output: str = "--output-folder") -> Command:
        folder = at(name, unit)
        given = ("--spec", folder / "spec.json", *arguments, output, folder / below)
        return Command(name, tuple(map(str, given)))

    for domain in domains:
        for shard in of.shards(domain):
            archives = dict(zip(of.sources_of(domain), of.inputs("clean", domain, shard)["fetch"], strict=True))
            for source in archives:
                yield stage("fetch", source, "--shard", shard, below=f"{shard}/archive", output="--output")
            named = [part for name, file in archives.items() for part in ("--archive", f"{name}={file}")]
            yield stage("clean", domain, *named, "--shard", shard, below=shard)
        for shard in of.shards(domain):
            yield stage("sort", domain, "--cleaned", at("clean", domain), "--shard", shard, below=shard)
            yield stage("sign", domain, "--documents", at("sort", domain) / shard / "documents.parquet", below=shard)
    for scope, compared in of.scopes.items():
        signed = ("--signed", *(f"{domain}={at('sign', domain)}" for domain in compared))
        pairs = of.files("bucket", scope) if of.near(scope) else []
        for file in pairs:
            bucket = pathlib.Path(file).parent.name
            yield stage("bucket", scope, *signed, "--bucket", bucket, below=f"{bucket}/pairs.npy", output="--output")
        yield stage("cluster", scope, *signed, *(("--pairs", *pairs) if pairs else ()))
    for domain in domains:
        duplicates = ("--duplicates", at("cluster", of.scope(domain)) / "duplicates.parquet")
        yield stage("assign_splits", domain, "--signed", at("sign", domain), *duplicates)
        groups = ("--groups", at("assign_splits", domain) / "groups.npy")
        for shard in of.shards(domain):
            documents = ("--documents", at("sort", domain) / shard / "documents.parquet")
            yield stage("write_splits", domain, *documents, *duplicates, *groups, "--shard", shard, below=shard)
            yield stage("sketch", domain, "--splits", at("write_splits", domain) / shard, below=shard)
    train = [part / "train.parquet" for domain in domains for part in of.parts("write_splits", domain)]
    yield stage("fit", "tokenizer", "--documents", *train)
    tokenizer = ("--tokenizer-folder", at("fit", "tokenizer"))
    for domain in domains:
        for shard in of.shards(domain):
            yield stage("encode", domain, "--split-folder", at("write_splits", domain) / shard, *tokenizer, below=shard)
        yield stage("pack", domain, "--encoded-folder", at("encode", domain), *tokenizer)
    folders = {name: [f"{domain}={at(name, domain)}" for domain in domains] for name in ("pack", "encode")}
    yield stage("balance", "mixture", "--packed", *folders["pack"], "--encoded", *folders["encode"], *tokenizer)
    yield card(of)


def card(of: StudyGraph) -> Command:
    """Return the command line of the data card."""
    given = ["--spec", str(of.spec_file(of.card_spec()))]
    for stage in ("clean", "sort", "assign_splits", "write_splits", "sketch", "encode", "pack"):
        given += [f"--{stage}", *(f"{domain}={of.folder(stage, domain)}" for domain in of.study.domains)]
    given += ["--cluster", *(f"{scope}={of.folder('cluster', scope)}" for scope in of.scopes)]
    given += ["--mixture-folder", str(of.folder("balance", "mixture")), "--output-folder", str(of.home / "tables")]
    return Command("card", tuple(given))


@contextlib.contextmanager
def within(folder: pathlib.Path) -> Iterator[None]:
    """Run the block in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


def check_study(command: Command) -> None:
    """Do what the workflow does with a study file before there are jobs."""
    found = StudyGraph(read_study(pathlib.Path(command.arguments[0])), pathlib.Path("results"))
    for name in found.sources:
        found.local_files(name)
    found.specs()


def call(command: Command) -> Ended:
    """Run a stage in this process and this folder. Let any exception pass, except the exit that a user sees."""
    said, status = io.StringIO(), 0
    with contextlib.redirect_stderr(said), _impatient(command):
        try:
            if command.verb == "study":
                cli.run(functools.partial(check_study, command))
            else:
                cli.main([command.verb, *command.arguments])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
    return ended(command, status, said.getvalue())


def ended(command: Command, status: int, said: str) -> Ended:
    """Describe how a command ended, from its exit status and what it wrote on standard error."""
    # reading a study is not a stage: its messages carry the name that this process used last, or none
    mark = re.compile(r"speciate(?: \w+)?: error: " if command.verb == "study" else f"speciate {command.verb}: error: ")
    marked = [(mark.match(line), line) for line in said.splitlines()]
    return Ended(status, tuple(line[match.end() :] for match, line in marked if match), said)


@contextlib.contextmanager
def _impatient(command: Command) -> Iterator[None]:
    def hangs(number: int, frame: types.FrameType | None) -> None:
        raise AssertionError(f"{command.verb} hangs: {' '.join(command.arguments)}")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def make(folder: pathlib.Path) -> list[Command]:
    """Run every data stage in `folder`; return the command lines."""
    corpus(folder)
    with within(folder):
        of = plan()
        of.write_specs()
        found = list(commands(of))
        for command in found:
            done = call(command)
            assert done.status == 0, done.said
    assert os.listdir(folder)
    return found
