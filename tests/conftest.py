"""Fixtures of all tests: the whole suite in its own processes, started once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports
from tests.triton_server import prepared_models


@pytest.fixture(scope="session", autouse=True)
def quiet_logs() -> None:
    """Log only errors of services that run in the process of the tests."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Folder with Triton and the prepared models."""
    return prepared_models()


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Suite]:
    """The running suite, shared by all tests: a test removes what it creates."""
    yield from running_suite(tmp_path_factory.mktemp("suite"), models_dir)


@pytest.fixture(scope="module")
def fragile_suite(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Suite]:
    """A suite for one test module, which may kill its processes."""
    yield from running_suite(tmp_path_factory.mktemp("fragile"), models_dir)


def running_suite(data_dir: Path, models_dir: Path) -> Iterator[Suite]:
    started = Suite.start(
        SuiteSettings(port=free_ports(1)[0], data_dir=data_dir, models_dir=models_dir)
    )
    try:
        yield started
    finally:
        started.stop()
