"""The committed weights of the near-duplicate classifier, and the validation of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imagesearch_services.gateway.duplicates.copy_classifier import (
    BUILT_IN_WEIGHTS,
    CopyClassifier,
)
from imagesearch_services.gateway.duplicates.model import EmbeddingEvidence
from imagesearch_services.gateway.ports import CopyEvidence
from imagesearch_services.gateway.scoring.calibration import CalibrationError

ALIGNED = CopyEvidence(
    agreement=0.98, contrast_share=0.5, shown_of_first=1, shown_of_second=1, inlier_count=90
)


def table(**changes: Any) -> dict[str, Any]:
    return {**json.loads(BUILT_IN_WEIGHTS.read_text()), **changes}


def test_the_committed_weights_distinguish_copies_from_a_series() -> None:
    classifier = CopyClassifier.load()
    embeddings = EmbeddingEvidence(0.5, 0.45, 0.4)
    assert classifier.is_copy(embeddings, ALIGNED)
    assert not classifier.is_copy(embeddings, CopyEvidence())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "Expecting property name"),
        (json.dumps([]), "list indices"),
        (json.dumps(table(bias="high")), "could not convert"),
        (json.dumps(table(bias=float("nan"))), "finite"),
        (json.dumps(table(weights={})), "missing or unknown: agreement, "),
        (
            json.dumps(table(weights={**table()["weights"], "sharpness": 1.0})),
            "missing or unknown: sharpness",
        ),
    ],
    ids=["not JSON", "not an object", "text", "NaN", "missing feature", "unknown feature"],
)
def test_invalid_weights_are_refused(content: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text(content)
    with pytest.raises(CalibrationError, match=problem) as caught:
        CopyClassifier.load(path)
    assert str(path) in str(caught.value)
