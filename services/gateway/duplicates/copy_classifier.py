"""A logistic model that decides whether two similar images are copies.

Embeddings alone cannot distinguish an edited copy from another picture of the same series (another
garment on the same floor, the next photo of a shelf). When the thumbnails are aligned, the pixels
of copies agree and those of a series do not. The model combines both kinds of evidence. Its weights
are fitted by `python -m imagesearch_services.models.near_duplicates.fit`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagesearch_services.gateway.duplicates.model import EmbeddingEvidence
from imagesearch_services.gateway.ports import CopyEvidence
from imagesearch_services.gateway.scoring.calibration import CalibrationError

BUILT_IN_WEIGHTS = Path(__file__).parent / "tables" / "near_duplicates.json"
"""File of the weights that are used by default."""


@dataclass(frozen=True, slots=True)
class CopyClassifier:
    """Weights of the logistic model."""

    bias: float
    weights: Mapping[str, float]
    """Weights by feature name; see `features`."""

    @classmethod
    def load(cls, path: Path = BUILT_IN_WEIGHTS) -> CopyClassifier:
        """Read the weights.

        Raises:
            CalibrationError: the file is unreadable, or its weights do not match the features.
        """
        try:
            table: dict[str, Any] = json.loads(path.read_text())
            bias = float(table["bias"])
            weights = {str(name): float(value) for name, value in table["weights"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(f"{path}: {error!s}") from error
        names = features(EmbeddingEvidence(0.0, 0.0, 0.0), CopyEvidence()).keys()
        if weights.keys() != names:
            different = sorted(weights.keys() ^ names)
            raise CalibrationError(
                f"{path}: weights must match the features; missing or unknown:"
                f" {', '.join(different)}"
            )
        if not all(map(math.isfinite, (bias, *weights.values()))):
            raise CalibrationError(f"{path}: bias and weights must be finite numbers")
        return cls(bias, weights)

    def log_odds(self, embeddings: EmbeddingEvidence, pixels: CopyEvidence) -> float:
        """Return the natural logarithm of the odds that two images are copies."""
        values = features(embeddings, pixels)
        return self.bias + math.fsum(weight * values[name] for name, weight in self.weights.items())

    def is_copy(self, embeddings: EmbeddingEvidence, pixels: CopyEvidence) -> bool:
        """Return whether two images are at least as likely copies as not."""
        return self.log_odds(embeddings, pixels) >= 0


def features(embeddings: EmbeddingEvidence, pixels: CopyEvidence) -> dict[str, float]:
    """Return the features of the logistic model, by name."""
    agreement = pixels.agreement
    shown = max(pixels.shown_of_first, pixels.shown_of_second)
    return {
        "agreement": agreement,
        "agreement_squared": agreement**2,
        "shown": shown,
        "agreement_and_shown": agreement * shown,
        "shown_of_both": min(pixels.shown_of_first, pixels.shown_of_second),
        "contrast": pixels.contrast_share,
        "bend": pixels.bend,
        "inliers": math.log1p(pixels.inlier_count),
        "no_inliers": float(pixels.inlier_count == 0),
        "similarity": embeddings.similarity,
        "closeness": embeddings.closeness,
        "strict_closeness": embeddings.strict_closeness,
        "agreement_and_closeness": agreement * embeddings.closeness,
    }
