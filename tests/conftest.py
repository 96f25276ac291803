"""Fixtures for the whole suite."""

from tests.hub.fixtures import hub, hub_server

__all__ = ["hub", "hub_server"]
