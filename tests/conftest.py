"""Fixtures for the whole suite, and how long it takes."""

import gc

import pytest

from tests.hub.fixtures import hub, hub_server

__all__ = ["hub", "hub_server"]


# Folders whose files take longest. They go first, so that two workers end together; with the files in any order one
# of them was left alone with minutes of stages that are killed and resumed.
LONG = ("distributed", "integration", "e2e", "data_mixes", "golden")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return LONG.index(folder) if folder in LONG else len(LONG)

    items.sort(key=rank)  # stable: files stay whole


def pytest_collection_finish(session: pytest.Session) -> None:
    # Every Trainer.train() collects garbage, which would look at each object of torch and transformers again: half a
    # second or more, in hundreds of tests
    gc.freeze()
