"""The folder of a model in Triton's repository.

A model is described in `model.pbtxt`; the settings of the runtimes are in `triton/runtimes/`.
Protobuf's text format can be concatenated, so a configuration is a concatenation of files:
`config.pbtxt` for the official image, `configs/python.pbtxt` for the Triton of the wheel.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imagesearch_services.models.manifest import Model

DESCRIPTION = ("model.pbtxt", "probe.pbtxt")
"""Files that describe a model, in its folder; the command `probe` writes the second."""
CONFIGURATIONS = {
    "config.pbtxt": ("batching.pbtxt", "onnxruntime.pbtxt"),
    "configs/python.pbtxt": ("batching.pbtxt", "python.pbtxt"),
}
"""Files of `triton/runtimes/` that each configuration contains."""


def configuration(deploy: Path, model: str, runtime_files: Sequence[str]) -> str:
    """Concatenate the description of a model and the settings of a runtime."""
    own, runtimes = deploy / "triton/models" / model, deploy / "triton/runtimes"
    parts = [own / name for name in DESCRIPTION] + [runtimes / name for name in runtime_files]
    return "\n".join(part.read_text() for part in parts if part.exists())


def sources(deploy: Path, model: Model) -> list[Path]:
    """Return the files that `write_model` reads, except the weights."""
    own = deploy / "triton/models" / model.name
    runtimes = deploy / "triton/runtimes"
    return sorted(
        path
        for folder in (own, runtimes)
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in {".onnx", ".pyc"}
    )


def write_model(
    deploy: Path, model: Model, weights: Path, licenses: Sequence[Path], target: Path
) -> None:
    """Write the folder of a model: both configurations, weights, backend code and licenses."""
    for name, runtime_files in CONFIGURATIONS.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(configuration(deploy, model.name, runtime_files))
    version = target / str(model.version)
    version.mkdir()
    shutil.copyfile(weights, version / "model.onnx")
    shutil.copyfile(deploy / "triton/runtimes/model.py", version / "model.py")
    for file in licenses:
        shutil.copyfile(file, target / file.name)
