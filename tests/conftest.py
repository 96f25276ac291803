"""Fixtures for the whole suite, and how long it takes."""

import gc

import pytest

from tests.hub.fixtures import hub, hub_server

__all__ = ["hub", "hub_server"]


def pytest_collection_finish(session: pytest.Session) -> None:
    # Every Trainer.train() collects garbage, which would look at each object of torch and transformers again: half a
    # second or more, in hundreds of tests
    gc.freeze()
