"""Answers of the models to the probe picture, computed with ONNX Runtime."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import onnxruntime

from imagesearch_services.embedding.inference.probe import (
    encode_answer,
    probe_answer,
    probe_picture,
)
from imagesearch_services.models.fetch import PreparationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imagesearch_services.models.manifest import Manifest

MIN_COSINE = 0.98
"""Minimum cosine between a model's answer and the stored answer.

A broken model is far below; differences in 8-bit arithmetic between processors stay above.
"""


def write_probes(
    manifest: Manifest, deploy: Path, models_dir: Path, report: Callable[[str], None]
) -> None:
    """Write `probe.pbtxt` next to the description of each prepared model.

    Raises:
        PreparationError: A model is not prepared, or its description lacks a parameter.
    """
    for model in manifest.models:
        folder = deploy / "triton/models" / model.name
        weights = models_dir / "repository" / model.name / str(model.version) / "model.onnx"
        if not weights.exists():
            raise PreparationError(f"{model.name} is missing in {models_dir}; run `prepare` first")
        described = (folder / "model.pbtxt").read_text()
        picture = probe_picture(
            int(_parameter(described, "input_width")), int(_parameter(described, "input_height"))
        )
        session = onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"])
        outputs = session.run(
            [_parameter(described, "output_name")],
            {_parameter(described, "input_name"): picture[None]},
        )
        (folder / "probe.pbtxt").write_text(
            "# The answer to the probe picture of services/embedding/inference/probe.py.\n"
            "# Written by `python -m imagesearch_services.models probe`.\n"
            + _entry("probe", encode_answer(probe_answer(outputs[0][0])))
            + _entry("probe_min_cosine", str(MIN_COSINE))
        )
        report(f"{model.name}: {folder / 'probe.pbtxt'}")


def _parameter(described: str, key: str) -> str:
    found = re.search(rf'key: "{key}" value {{ string_value: "([^"]*)"', described)
    if not found:
        raise PreparationError(f"the description has no parameter {key}")
    return found[1]


def _entry(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
