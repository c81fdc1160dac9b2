"""A real Triton for tests: `with running_triton() as triton: …`, one for each test session."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from imagesearch_services.models.common.prepared import DEPLOY_DIR, MODELS_DIR, prepared_models
from imagesearch_services.runner.triton import TritonPorts, TritonProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DEPLOY_DIR", "MODELS_DIR", "prepared_models", "running_triton"]


@contextmanager
def running_triton() -> Iterator[TritonProcess]:
    """Runs Triton with all models on free ports; `.ports` holds the addresses.

    As a fixture:

        @pytest.fixture(scope="session")
        def triton() -> Iterator[TritonProcess]:
            with running_triton() as triton:
                yield triton
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "triton.log"
        with TritonProcess(prepared_models(), TritonPorts.free(), log) as triton:
            triton.wait_ready()
            yield triton
