"""The small mixture and the small run of the training tests serve here too."""

from tests.training.conftest import mixture as mixture
from tests.training.conftest import run_spec as run_spec
