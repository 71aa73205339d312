"""For all tests: one torch thread (two give other bits, and crawl on a busy machine); no GPU tests without a GPU.

Under pytest-xdist a file's tests stay together, for the sake of its fixtures, and those that run the workflow go first
and one after another: they take longest, and share one finished study.
"""

import pathlib

import pytest
import torch

torch.set_num_threads(1)


WORKFLOW = pathlib.Path(__file__).parent / "workflow"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Groups tests for xdist, the workflow's first; skips what is marked gpu where torch sees none."""
    if config.pluginmanager.hasplugin("xdist"):
        items.sort(key=lambda item: WORKFLOW not in item.path.parents)
        for item in items:
            name = "workflow" if WORKFLOW in item.path.parents else str(item.path)
            item.add_marker(pytest.mark.xdist_group(name))
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="torch sees no GPU here"))
