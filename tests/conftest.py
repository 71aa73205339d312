"""Configure all tests: one torch thread, and no GPU tests without a GPU.

Two threads give other bits, and crawl on a busy machine. Under pytest-xdist a file's tests stay together, for the sake
of its fixtures. The tests that run the workflow go first and one after another: they take longest, and share one
finished study.
"""

from typing import Any

import pytest
import torch

torch.set_num_threads(1)
# their failures, too, show the values that were compared
pytest.register_assert_rewrite(*(f"tests.cluster.{name}" for name in ("clone", "scenarios", "slurm")))

WORKFLOW = "tests/workflow/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the workflow's tests first; skip the tests marked gpu if torch sees no GPU."""
    items.sort(key=lambda item: not item.nodeid.startswith(WORKFLOW))
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="torch sees no GPU here"))


# xdist's own loadgroup would suffice, but has no effect with pytest 9.2: it renames tests by a field that was removed
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Send a file's tests to one process, and all of the workflow's files to the same process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return WORKFLOW if nodeid.startswith(WORKFLOW) else nodeid.split("::")[0]

    return ByFile(config, log)
