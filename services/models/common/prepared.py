"""The prepared models, for commands that run them."""

from __future__ import annotations

import os
from pathlib import Path

from imagesearch_services.models.common.pictures import ROOT
from imagesearch_services.models.manifest import read_manifest
from imagesearch_services.models.prepare import Preparation

DEPLOY_DIR = ROOT / "deploy"
MODELS_DIR = Path(os.environ.get("IMAGESEARCH_MODELS_DIR", ROOT / ".models"))


def prepared_models() -> Path:
    """Prepare the models folder if it is out of date, and return it."""
    Preparation(read_manifest(DEPLOY_DIR / "models.toml"), DEPLOY_DIR, MODELS_DIR).prepare()
    return MODELS_DIR


def weights_file(model: str, version: str) -> Path:
    """Return the ONNX file of a prepared model."""
    return prepared_models() / "repository" / model / version / "model.onnx"


def committed_weights(model: str, version: int) -> Path:
    """Return the ONNX file of a model whose weights are committed."""
    return DEPLOY_DIR / "triton/models" / model / str(version) / "model.onnx"
