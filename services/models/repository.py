"""Puts together the folder of one model, as Triton reads it.

A model is described once, in `model.pbtxt`; what a runtime needs beside that is in
`triton/runtimes/`. Protobuf's text format may be joined by appending, so a configuration is a few
files one after the other: `config.pbtxt` for the official image, `configs/python.pbtxt` for the
Triton that a wheel brings.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imagesearch_services.models.manifest import Model

DESCRIPTION = ("model.pbtxt", "probe.pbtxt")
"""In the model's own folder; the second is made by `models probe`."""
CONFIGURATIONS = {
    "config.pbtxt": ("batching.pbtxt", "onnxruntime.pbtxt"),
    "configs/python.pbtxt": ("batching.pbtxt", "python.pbtxt"),
}


def configuration(deploy: Path, model: str, runtime_files: Sequence[str]) -> str:
    """Joins the description of a model and the settings of a runtime."""
    own, runtimes = deploy / "triton/models" / model, deploy / "triton/runtimes"
    parts = [own / name for name in DESCRIPTION] + [runtimes / name for name in runtime_files]
    return "\n".join(part.read_text() for part in parts if part.exists())


def sources(deploy: Path, model: Model) -> list[Path]:
    """All files that `write_model` reads, except the weights."""
    own = deploy / "triton/models" / model.name
    runtimes = deploy / "triton/runtimes"
    return sorted(
        path
        for folder in (own, runtimes)
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in {".onnx", ".pyc"}
    )


def write_model(
    deploy: Path, model: Model, weights: Path, licences: Sequence[Path], target: Path
) -> None:
    """Writes the folder of a model: both configurations, weights, backend code and licences."""
    for name, runtime_files in CONFIGURATIONS.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(configuration(deploy, model.name, runtime_files))
    version = target / str(model.version)
    version.mkdir()
    shutil.copyfile(weights, version / "model.onnx")
    shutil.copyfile(deploy / "triton/runtimes/model.py", version / "model.py")
    for licence in licences:
        shutil.copyfile(licence, target / licence.name)
