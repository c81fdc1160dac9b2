"""What tests share: the whole suite in processes of its own, started once."""

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
    """Services that run inside of the tests' process tell only what is wrong."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Triton and the models, prepared."""
    return prepared_models()


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Suite]:
    """Gateway, Embedding, Catalog and Triton, running; shared, so leave it as it was."""
    yield from running_suite(tmp_path_factory.mktemp("suite"), models_dir)


@pytest.fixture(scope="module")
def fragile_suite(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Suite]:
    """A suite of the module's own, whose processes may be killed."""
    yield from running_suite(tmp_path_factory.mktemp("fragile"), models_dir)


def running_suite(data_dir: Path, models_dir: Path) -> Iterator[Suite]:
    started = Suite.start(
        SuiteSettings(port=free_ports(1)[0], data_dir=data_dir, models_dir=models_dir)
    )
    try:
        yield started
    finally:
        started.stop()
