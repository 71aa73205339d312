"""Count how many places of the package an extension touches, on real additions to a copy of the repository."""

import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parents[1]
COPIED = ("Snakefile", "config.yaml", "studies", "workflow", "profiles", "src", "containers")


class Copy:
    """Hold a copy of the repository, and record which files were touched."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.touched: set[str] = set()
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, folder / name)
        (folder / ".envs").symlink_to(ROOT / ".envs")

    def add(self, file: str, text: str) -> None:
        """Write a new file."""
        assert not (self.folder / file).exists()
        (self.folder / file).write_text(textwrap.dedent(text))
        self.touched.add(file)

    def insert(self, file: str, before: str, text: str) -> None:
        """Insert `text` before a text that occurs once."""
        content = (self.folder / file).read_text()
        assert content.count(before) == 1, f"{before!r} occurs {content.count(before)} times in {file}"
        (self.folder / file).write_text(content.replace(before, textwrap.dedent(text) + before))
        self.touched.add(file)

    def python(self, script: str) -> str:
        """Run a script with the copy's package; if it fails, fail the test with what it printed."""
        return self.run([sys.executable, "-c", textwrap.dedent(script)])

    def run(self, command: list[str]) -> str:
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "src"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> Copy:
    return Copy(tmp_path)


def test_a_router_is_one_file(copy: Copy) -> None:
    copy.add(
        "src/speciate/model/moe/router/modulo.py",
        '''
        """Control: the slot of a token is its id modulo the number of slots."""

        from typing import ClassVar

        import torch.nn.functional as F
        from torch import Tensor

        from speciate.config.contracts.model import RouterOptions
        from speciate.model.moe.top_k_router import Scorer, Scores
        from speciate.model.token_batch import BuildContext, TokenBatch


        class Options(RouterOptions):
            """No options."""

            scores_all_slots: ClassVar[bool] = False


        class Router(Scorer):
            """Looks up nothing."""

            def __init__(self, options: Options, context: BuildContext, num_slots: int) -> None:
                super().__init__()
                self.num_slots = num_slots

            def forward(self, x_ND: Tensor, tokens: TokenBatch) -> Scores:
                probs_NS = F.one_hot(tokens.id_BT.flatten() % self.num_slots, self.num_slots).to(x_ND.dtype)
                return Scores(probs_NS, probs_NS, None)
        ''',
    )
    copy.python(
        """
        import pathlib, torch
        from speciate.config.extends import merge, read_yaml
        from speciate.config.study import parse_study
        from speciate.selection.selection import record_selections
        from speciate.training.build_model import build_model

        modulo = {"change": {"model": {"block": {"ffn": {"router": "modulo", "balance": "none"}}}}, "about": "Modulo"}
        settings = merge(read_yaml(pathlib.Path("studies/three_selectors.yaml")), {"ablations": {"modulo": modulo}})
        run = parse_study(settings, "three_selectors.yaml").run("modulo", 0)
        torch.manual_seed(0)
        model = build_model(run, 50)
        tokens = torch.randint(50, (2, 16))
        with record_selections(model) as record:
            model(tokens)
        assert len(record) == run.model.num_layers
        for selection in record.values():
            assert (selection.chosen_NS.argmax(1) == tokens.flatten() % 8).all()
        """
    )
    assert len(copy.touched) == 1


def test_a_run_statistic_is_its_function_and_its_row(copy: Copy) -> None:
    copy.insert(
        "src/speciate/analysis/load.py",
        "OF_SHARES: dict",
        '''
        def herfindahl(share: Array) -> Array:
            """sum f^2: 1/E when even, 1 when one slot takes all."""
            result: Array = (share**2).sum(axis=-1)
            return result


        ''',
    )
    copy.insert("src/speciate/analysis/load.py", '    "gini": gini,\n', '    "herfindahl": herfindahl,\n')
    row = 'Statistic("herfindahl", "Herfindahl", "", "load", "max"),'
    copy.insert("src/speciate/config/contracts/statistics.py", '    Statistic("information_bits"', f"    {row}\n")
    copy.python(
        """
        import pathlib
        import numpy as np
        import pandas as pd
        from speciate.analysis import comparison, load, summary, tables
        from speciate.config.contracts.statistics import LOAD
        from speciate.config.extends import merge, read_yaml
        from speciate.config.study import parse_study

        hypothesis = {"statement": "It differs.", "statistic": "herfindahl", "arm": "frozen", "reference": "auxiliary",
                      "direction": "greater"}
        parse_study(merge(read_yaml(pathlib.Path("config.yaml")), {"hypotheses": {"concentrated": hypothesis}}), "")
        assert "herfindahl" in tables.COLUMNS["selectors"] and "herfindahl" in tables.COLUMNS["runs"]
        assert load.OF_SHARES["herfindahl"](np.array([[0.5, 0.5], [1.0, 0.0]])).tolist() == [0.5, 1.0]

        def row(arm, seed, value):
            numbers = {name: 0.0 for name, kind in tables.COLUMNS["selectors"].items() if kind == "float64"}
            selectors = pd.DataFrame([{"probe": "full", **numbers, "herfindahl": one} for one in (value, 0.1)])
            losses = pd.DataFrame({"nats": [1.0], "bits_per_byte": [1.0]})
            rules = ["rule_60_percent", "rule_3_over_e", "alarm"]
            verdicts = pd.DataFrame({"selector": "any", "rule": rules, "first_step": np.nan})
            facts = {"ablation": arm, "seed": seed, "excess_information_bits": 0.0}
            return summary.run_row(facts, losses, selectors, verdicts)

        values = {("auxiliary", 0): 0.2, ("auxiliary", 1): 0.3, ("frozen", 0): 0.7, ("frozen", 1): 0.9}
        runs = pd.concat([row(arm, seed, value) for (arm, seed), value in values.items()])
        assert runs["herfindahl"].tolist() == [0.2, 0.3, 0.7, 0.9]  # the worst selector speaks for the run
        losses = pd.DataFrame([{"ablation": arm, "seed": seed, "domain": "code", "nats": 1.0}
                               for arm in ("auxiliary", "frozen") for seed in (0, 1)])
        compared = comparison.comparisons_table(
            runs=runs, losses=losses, ablations=("auxiliary", "frozen"), reference="auxiliary", seeds=(0, 1),
            confidence=0.95)
        (difference,) = compared[compared["statistic"] == "herfindahl"]["difference"]
        assert abs(difference - 0.55) < 1e-12
        assert "Herfindahl" in [statistic.label for statistic in LOAD]  # what the report's table of loads iterates
        """
    )
    assert len(copy.touched) == 2


def test_a_figure_is_one_file(copy: Copy) -> None:
    copy.add(
        "src/speciate/figures/losses_of_runs.py",
        '''
        """Which loss does each run reach?"""

        from typing import Any

        from matplotlib.figure import Figure

        from speciate.config.contracts.figures import FigureOptions
        from speciate.figures import style

        QUESTION = "Which loss does each run reach?"
        TABLES = {"runs": ("ablation", "seed", "loss")}
        LIMITS = "A loss does not show what a model knows."


        class Options(FigureOptions):
            """No options."""


        def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
            return f"The lowest loss is {tables['runs']['loss'].min():.3f}" if len(tables["runs"]) else ""


        def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
            canvas = style.new_figure(2.0)
            canvas.subplots().plot(tables["runs"]["loss"], "o")
            return canvas


        def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
            return f"The loss of {len(tables['runs'])} runs."
        ''',
    )
    planned = copy.run([str(ROOT / ".envs/host/bin/snakemake"), "--dry-run", "--quiet", "host"])
    assert "results/default/figures/losses_of_runs.svg" in planned
    copy.python(
        """
        import pandas as pd
        from speciate.config.contracts.figures import figure_options

        options = figure_options("losses_of_runs")(kind="losses_of_runs")
        module = options.component()
        runs = {"runs": pd.DataFrame({"ablation": ["a", "b"], "seed": [0, 0], "loss": [1.0, 2.0]})}
        assert module.finding(runs, None, options) == "The lowest loss is 1.000"
        assert module.figure(runs, None, options).axes
        assert module.caption(runs, None, options) == "The loss of 2 runs."
        """
    )
    assert len(copy.touched) == 1


def test_a_data_stage_is_a_verb_and_a_rule(copy: Copy) -> None:
    copy.add(
        "src/speciate/stages/count_words.py",
        '''
        """Count the words of one shard's training documents."""

        import argparse
        import json
        import pathlib

        from speciate.config.components import Strict
        from speciate.config.run import Name, read_spec
        from speciate.config.stage import Stage
        from speciate.data.documents import read_tables
        from speciate.io import atomic_write


        class Spec(Strict):
            """What the stage reads."""

            domain: Name


        STAGE = Stage(
            per="domain",
            reads={"write_splits": ("train.parquet",)},
            writes=("words.json",),
            spec=lambda graph, name: Spec(domain=name),
        )


        def add_arguments(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("--spec", type=pathlib.Path, required=True, help="the domain")
            parser.add_argument("--documents", type=pathlib.Path, required=True, help="the training documents")
            parser.add_argument("--output", type=pathlib.Path, required=True, help="where to write the count")


        def main(arguments: argparse.Namespace) -> None:
            spec = read_spec(Spec, arguments.spec)
            tables = read_tables(arguments.documents, ["text"])
            words = sum(len(text.split()) for table in tables for text in table["text"].to_pylist())
            with atomic_write(arguments.output) as temp_path:
                temp_path.write_text(json.dumps({"domain": spec.domain, "words": words}))
        ''',
    )
    rule = """

        rule count_words:
            input:
                unpack(inputs_of("count_words")),
            output:
                outputs_of("count_words"),
            log:
                log_of("count_words"),
            benchmark:
                benchmark_of("count_words")
            params:
                code=code_of("count_words"),
                spec=spec_of("count_words"),
            shell:
                "python -m speciate count_words --spec {params.spec} --documents {input.write_splits}"
                " --output {output} 2>&1 | tee -a {log} >&2"
    """
    rules = copy.folder / "workflow/rules/data.smk"
    rules.write_text(rules.read_text() + textwrap.dedent(rule))
    copy.touched.add("workflow/rules/data.smk")
    assert "--documents" in copy.run([sys.executable, "-m", "speciate", "count_words", "--help"])
    target = copy.python(
        """
        import pathlib
        from speciate.config.study import read_study
        from speciate.graph.study_graph import StudyGraph

        graph = StudyGraph(read_study(pathlib.Path("config.yaml")), pathlib.Path("results"))
        (file,) = graph.files("count_words", "prose")
        (documents,) = graph.inputs("count_words", "prose", "0-of-1")["write_splits"]
        assert documents == str(graph.folder("write_splits", "prose") / "0-of-1" / "train.parquet")
        print(file)
        """
    ).strip()
    planned = copy.run([str(ROOT / ".envs/host/bin/snakemake"), "--dry-run", "--quiet", "host", "--", target])
    assert "rule count_words:" in planned or "count_words" in planned.split("Job stats:")[1]
    assert {"fetch", "clean", "write_splits"} <= set(planned.split("Job stats:")[1].split())
    assert len(copy.touched) == 2


def test_a_format_of_traces_is_one_file(copy: Copy) -> None:
    copy.add(
        "src/speciate/traces/format/letters.py",
        '''
        """Read a text in which each letter is the expert of one token, a line a layer."""

        import pathlib
        from collections.abc import Sequence

        import numpy as np

        from speciate.selection.record_builder import RecordBuilder
        from speciate.traces.contract import Contents, ReadOptions
        from speciate.traces.decisions import Decisions

        SUMMARY = "Letters"
        FILES = "`*.letters`"
        CONTENTS = Contents()
        LOOKS_FOR = "lines of letters after `letters:`"


        def matches(path: pathlib.Path) -> bool:
            return path.is_file() and path.read_bytes().startswith(b"letters:")


        def read(paths: Sequence[pathlib.Path], builder: RecordBuilder, options: ReadOptions) -> None:
            decisions = Decisions(builder, options)
            for path in paths:
                for layer, line in enumerate(path.read_text().splitlines()[1:]):
                    choice_NK = np.array([[ord(letter) - ord("a")] for letter in line])
                    row_N = np.full(len(line), decisions.row(path.stem))
                    decisions.add(f"{path}, line {layer + 2}", (f"layer {layer}", layer), row_N, choice_NK)
            decisions.finish()
        ''',
    )
    said = copy.python(
        """
        import pathlib
        from speciate.traces.contract import ReadOptions
        from speciate.traces.read import read_trace

        path = pathlib.Path("some.letters")
        path.write_text("letters:\\nabca\\nccca\\n")
        record = read_trace(path, options=ReadOptions(num_experts=4))
        print([selector.tally.chosen_GS[0].tolist() for selector in record.selectors])
        """
    )
    assert said.strip() == "[[2.0, 1.0, 1.0, 0.0], [1.0, 0.0, 3.0, 0.0]]"
    assert len(copy.touched) == 1


def test_a_kind_of_task_is_one_file(copy: Copy) -> None:
    copy.add(
        "src/speciate/evaluation/task/tallest.py",
        '''
        """The largest weight of the embeddings: a task that asks nothing of the model."""

        import pandas as pd
        from pydantic import Field

        from speciate.config.contracts.evaluation import SCORES, TaskOptions
        from speciate.evaluation.subject import Subject


        class Options(TaskOptions):
            """How the weight is counted."""

            scale: float = Field(1.0, gt=0)
            """Factor of the weight."""


        def evaluate(options: Options, subject: Subject) -> pd.DataFrame:
            """Return one row."""
            value = options.scale * float(subject.model.token_embedding.weight.max())
            row = ("largest", "", "all", "all", -1, float("nan"), value, 1.0, float("nan"))
            return pd.DataFrame([row], columns=list(SCORES))
        ''',
    )
    copy.python(
        """
        import pathlib
        from types import SimpleNamespace
        import torch
        from speciate.analysis.tasks.scores import check_scores
        from speciate.analysis.tasks.means import Settings
        from speciate.analysis.tasks.tasks import Runs, task_tables
        from speciate.config.extends import merge, read_yaml
        from speciate.config.study import parse_study
        from speciate.graph.provenance import digest
        from speciate.graph.study_graph import StudyGraph

        tasks = {"evaluation": {"tasks": {"mine": {"kind": "tallest", "scale": 2}}}}
        study = parse_study(merge(read_yaml(pathlib.Path("studies/three_selectors.yaml")), tasks), "")
        graph = StudyGraph(study, pathlib.Path("results"))
        spec = graph.task_spec("dense", 0, "mine")
        assert graph.spec_file(spec) in graph.specs() and digest("evaluate_tasks", spec) != digest("evaluate_tasks")
        weight = torch.tensor([[1.0, 3.0]])
        subject = SimpleNamespace(model=SimpleNamespace(token_embedding=SimpleNamespace(weight=weight)))
        rows = check_scores(spec.options.component().evaluate(spec.options, subject), "tallest")
        runs, settings = Runs(("dense",), (0,), "dense"), Settings(0.95, 19, 0)
        (row,) = task_tables("mine", {("dense", 0): (rows, "")}, runs, settings)["tasks"].itertuples()
        assert (row.metric, row.value, row.questions) == ("largest", 6.0, 1)
        """
    )
    assert len(copy.touched) == 1
