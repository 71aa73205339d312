"""Estimate how long a run takes, so that a cluster's job can hold several short ones.

The estimate needs no torch and no measurement. It errs on the long side, by a factor of two or three for the models of
the default study on one core. Nothing that a run computes depends on it.
"""

from speciate.config.run import RunSpec
from speciate.config.study import Study

CORE_SPEED = 2e10
"""Operations a second of one core, for the small matrices of a small model."""
GPU_SPEED = 2e13
"""Operations a second of one GPU."""
START_SECONDS = 5.0
"""What a stage takes before its work begins, mostly the import of torch."""
EXPERTS = 2
"""How many times the work of a dense block one block does at most: experts, indexers, heads that look ahead."""
VOCABULARY = 16_384
"""Tokens of a vocabulary; the real number is known only when the tokenizer has been fitted."""


def training_seconds(run: RunSpec, block_length: int) -> float:
    """Return about how many seconds a training takes at most."""
    training = run.training
    tokens = training.num_steps * training.blocks_per_step * block_length
    return START_SECONDS + 6 * tokens * _parameters(run) / (_speed(run) * training.processes)


def evaluation_seconds(run: RunSpec, study: Study) -> float:
    """Return about how many seconds evaluation and measurement of a run take at most, together."""
    held_out = study.held_out
    blocks = len(study.domains) * (held_out.test_blocks + held_out.probe_blocks)
    return 2 * START_SECONDS + 2 * blocks * study.block_length * _parameters(run) / _speed(run)


def _parameters(run: RunSpec) -> float:
    """Return about how many weights each token meets (Kaplan et al. 2020, section 2.1: 12 x layers x width^2)."""
    model = run.model
    return EXPERTS * 12 * model.num_layers * model.width**2 + VOCABULARY * model.width


def _speed(run: RunSpec) -> float:
    return GPU_SPEED if run.training.device == "cuda" else CORE_SPEED * run.training.threads
