"""Tasks of EleutherAI's lm-evaluation-harness: its benchmarks by name, and the user's own in its YAML.

A row is one question and one of the harness's metrics, before the harness averages it, so that our intervals and
comparisons hold for it. What averages otherwise than by a mean keeps that property by another name:

    word_perplexity = exp(nats_per_word)    byte_perplexity = exp(nats_per_byte)    perplexity = exp(nats_per_answer)

each a mean weighted by words or bytes. bits_per_byte is one already. A metric that is no mean at all (F1 of a class, a
correlation) is left out, and the log says so. The chance of a choice is 1 / number of choices. Masked diffusion answers
by a bound of the likelihood: its metrics then end in `_bound`.

The harness decides prompts, shots, answers and metrics; `downstream/lm_eval_model.py` asks the model. Its code runs
nowhere but in the environment of evaluation (`make evaluation-environment`).
"""

import pathlib
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import pandas as pd
import pydantic
from pydantic import Field

from speciate.config.contracts.evaluation import TaskOptions
from speciate.data.tokens.manifest import read_manifest
from speciate.evaluation.downstream.harness_scores import rows_of
from speciate.evaluation.downstream.harness_tasks import load_tasks, with_metadata
from speciate.evaluation.subject import SCORES, Subject


class Options(TaskOptions):
    """Tasks of the lm-evaluation-harness."""

    environment: ClassVar[Literal["study", "evaluation"]] = "evaluation"

    tasks: Annotated[tuple[str, ...], pydantic.Strict(False), Field(min_length=1)]
    """Names of the harness's tasks, groups or tags, or of those in `include_path`."""
    include_path: str | None = None
    """Folder of the user's own tasks in the harness's YAML. Data files in them are relative to this folder."""
    shots: int | None = Field(None, ge=0)
    """Number of solved examples before each question; null: what the task says."""
    limit: int | None = Field(None, ge=1)
    """Number of questions of each task, the first ones; null: all."""
    batch: int = Field(16, ge=1)
    """Number of texts that run at once."""
    lengths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], pydantic.Strict(False)] = ()
    """Lengths in tokens, for tasks such as RULER that make their texts; without any, the model's context."""
    sampler: str = "random_order"
    """Sampler of a masked-diffusion model, for tasks whose answer is written: a file of evaluation/sampler."""
    seed: int = Field(0, ge=0)
    """Seed of sampling, and of the choice of solved examples."""

    def files(self) -> tuple[str, ...]:
        """Return all files of the user's folder: tasks, data and code."""
        if self.include_path is None:
            return ()
        files = sorted(file for file in pathlib.Path(self.include_path).rglob("*") if file.is_file())
        seen = [file for file in files if not any(part.startswith((".", "__")) for part in file.parts)]
        return tuple(map(str, seen)) or (self.include_path,)


def evaluate(options: Options, subject: Subject) -> pd.DataFrame:
    """Return the score of each question.

    Raises:
        ValueError: a task is unknown or its data are out of reach, or the model cannot answer it.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager  # noqa: F401 - refused here, by its name, where it is not installed

    from speciate.evaluation.downstream.lm_eval_model import SpeciateLM

    model = SpeciateLM.of(
        subject.run,
        subject.model,
        subject.tokenizer,
        end=read_manifest(subject.folder / "tokenizer").end_of_text,
        batch=options.batch,
        sampler=options.sampler,
        seed=options.seed,
    )
    with with_metadata(subject.tokenizer, options.lengths or (subject.model.context,)) as metadata:
        loaded = load_tasks(
            options.tasks, options.include_path, shots=options.shots, metadata=metadata, seed=options.seed
        )
        results = lm_eval.evaluate(lm=model, task_dict=loaded, limit=options.limit, bootstrap_iters=0, log_samples=True)
    rows = [row for name, samples in _samples(results) for row in rows_of(loaded["tasks"][name], name, samples)]
    if model.is_bound:
        rows = [{**row, "metric": f"{row['metric']}_bound"} for row in rows]
    return pd.DataFrame(rows, columns=list(SCORES)).astype(SCORES)


def _samples(results: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    yield from results["samples"].items()
