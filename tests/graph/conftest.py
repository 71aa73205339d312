"""Reuse the small mixture and the small run of the training tests."""

from tests.training.conftest import mixture as mixture
from tests.training.conftest import run_spec as run_spec
