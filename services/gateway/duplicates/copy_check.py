"""Whether two images that lie near each other are copies, from their small pictures.

Embeddings alone can't tell an edited copy from another picture of the same series (another garment
on the same floor, the next shot of a shelf). Laid over each other, copies agree and series do not:
Embedding measures that on the small pictures that the Catalog keeps, and the weights here, fitted
by `python -m tests.benchmarks.duplicates.fit`, turn it and the closeness into yes or no.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog

from imagesearch_services.gateway.ports import Catalog, CopyEvidence, Embedding

MAX_PICTURES = 100
"""Of one call."""

BIAS = -28.241
WEIGHTS: Mapping[str, float] = {
    "agreement": -2.808,
    "agreement_squared": 3.476,
    "shown": 20.522,
    "agreement_and_shown": 7.973,
    "shown_of_both": -1.457,
    "contrast": -0.961,
    "bend": -63.396,
    "inliers": -0.103,
    "no_inliers": -2.260,
    "similarity": -2.027,
    "closeness": 21.480,
    "strict_closeness": -12.410,
    "agreement_and_closeness": 3.764,
}
"""Of `features`, for a logistic model."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """What embeddings say of two images."""

    similarity: float
    closeness: float
    """As the better of the two searches judges it."""
    strict_closeness: float
    """As the worse of them does."""


def features(likeness: Likeness, evidence: CopyEvidence) -> dict[str, float]:
    """Give what the weights are of."""
    agreement = evidence.agreement
    shown = max(evidence.shown_of_first, evidence.shown_of_second)
    return {
        "agreement": agreement,
        "agreement_squared": agreement**2,
        "shown": shown,
        "agreement_and_shown": agreement * shown,
        "shown_of_both": min(evidence.shown_of_first, evidence.shown_of_second),
        "contrast": evidence.contrast_share,
        "bend": evidence.bend,
        "inliers": math.log1p(evidence.inlier_count),
        "no_inliers": float(evidence.inlier_count == 0),
        "similarity": likeness.similarity,
        "closeness": likeness.closeness,
        "strict_closeness": likeness.strict_closeness,
        "agreement_and_closeness": agreement * likeness.closeness,
    }


def log_odds(likeness: Likeness, evidence: CopyEvidence) -> float:
    """Give the logarithm of the odds that two images are copies; 0 is even."""
    values = features(likeness, evidence)
    return BIAS + math.fsum(weight * values[name] for name, weight in WEIGHTS.items())


class CopyCheck:
    """Checks images of one library."""

    def __init__(self, catalog: Catalog, embedding: Embedding) -> None:
        self._catalog = catalog
        self._embedding = embedding

    async def check(
        self, library_id: str, library_uid: str, pairs: Sequence[tuple[str, str, Likeness]]
    ) -> list[bool | None]:
        """Tell which pairs of images are copies.

        Args:
            library_id: where they are.
            library_uid: of the library that is meant.
            pairs: two ids, and how near they lie.

        Returns:
            For each pair whether it is copies; None where a small picture is missing, or what is
            kept as one can't be read.
        """
        results: list[bool | None] = []
        for batch in _batches(pairs):
            ids = list(dict.fromkeys(image_id for a, b, _ in batch for image_id in (a, b)))
            files = dict(
                zip(
                    ids,
                    await self._catalog.get_thumbnails(library_id, ids, library_uid=library_uid),
                    strict=True,
                )
            )
            there = [image_id for image_id in ids if files[image_id]]
            rows = {image_id: row for row, image_id in enumerate(there)}
            both = [row for row, (a, b, _) in enumerate(batch) if a in rows and b in rows]
            verdicts: list[bool | None] = [None] * len(batch)
            if both:
                found = await self._embedding.check_copies(
                    [files[image_id] for image_id in there],
                    [(rows[batch[row][0]], rows[batch[row][1]]) for row in both],
                )
                for row, evidence in zip(both, found, strict=True):
                    if evidence is None:
                        _warn_of_unreadable(library_id, batch[row][:2])
                    else:
                        verdicts[row] = log_odds(batch[row][2], evidence) >= 0
            results += verdicts
        return results


def _warn_of_unreadable(library_id: str, image_ids: Sequence[str]) -> None:
    structlog.get_logger().warning(
        "duplicates.unreadable_thumbnail", library=library_id, one_of=list(image_ids)
    )


def _batches(
    pairs: Sequence[tuple[str, str, Likeness]],
) -> Iterator[Sequence[tuple[str, str, Likeness]]]:
    """Share pairs out, in their order, so that each call has few enough pictures."""
    batch: list[tuple[str, str, Likeness]] = []
    ids: set[str] = set()
    for pair in pairs:
        if len(ids.union(pair[:2])) > MAX_PICTURES:
            yield batch
            batch, ids = [], set()
        batch.append(pair)
        ids.update(pair[:2])
    if batch:
        yield batch
