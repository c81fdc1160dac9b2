"""A real Triton for tests."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from imagesearch_services.models.manifest import read_manifest
from imagesearch_services.models.prepare import Preparation
from imagesearch_services.runner.triton import TritonPorts, TritonProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
DEPLOY_DIR = ROOT / "deploy"
MODELS_DIR = Path(os.environ.get("IMAGESEARCH_MODELS_DIR", ROOT / ".models"))


def prepared_models() -> Path:
    """Prepare the models folder if it is not up to date, and return it."""
    Preparation(read_manifest(DEPLOY_DIR / "models.toml"), DEPLOY_DIR, MODELS_DIR).prepare()
    return MODELS_DIR


@contextmanager
def running_triton() -> Iterator[TritonProcess]:
    """Run Triton with all models on free ports; `.ports` has the addresses.

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
