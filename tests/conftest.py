"""For all tests: one torch thread (two give other bits, and crawl on a busy machine); no GPU tests without a GPU.

Under pytest-xdist a file's tests stay together, for the sake of its fixtures, and those that run the workflow go first
and one after another: they take longest, and share one finished study.
"""

from typing import Any

import pytest
import torch

torch.set_num_threads(1)

WORKFLOW = "tests/workflow/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the workflow's tests first; skips what is marked gpu where torch sees none."""
    items.sort(key=lambda item: not item.nodeid.startswith(WORKFLOW))
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="torch sees no GPU here"))


# xdist's own loadgroup, which would do, has no effect with pytest 9.2: it renames tests by a field that is gone
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests go to one process, and the workflow's files to the same one."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return WORKFLOW if nodeid.startswith(WORKFLOW) else nodeid.split("::")[0]

    return ByFile(config, log)
