"""Checks whether similar images are copies, by aligning their thumbnails.

The Catalog stores the thumbnails, the Embedding service aligns pairs of them and measures how well
the pixels agree, and the classifier decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from imagesearch_services.common.logs import logger
from imagesearch_services.gateway.duplicates.copy_classifier import CopyClassifier
from imagesearch_services.gateway.duplicates.model import EmbeddingEvidence
from imagesearch_services.gateway.ports import Catalog, Embedding

MAX_THUMBNAILS = 100
"""Maximum thumbnails per call of the Embedding service."""

CandidatePair = tuple[str, str, EmbeddingEvidence]
"""The ids of two images, and how similar their embeddings are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyCheck:
    """Checks pairs of stored images."""

    catalog: Catalog
    embedding: Embedding
    classifier: CopyClassifier

    async def check(
        self, library_id: str, library_uid: str, pairs: Sequence[CandidatePair]
    ) -> list[bool | None]:
        """Decide which pairs are copies.

        Args:
            library_id: library of the images.
            library_uid: expected uid of that library.
            pairs: pairs to check.

        Returns:
            For each pair whether it is a pair of copies; None if a thumbnail is missing or
            unreadable.

        Raises:
            ServiceError: LIBRARY_CHANGED.
        """
        results: list[bool | None] = []
        for batch in _batches(pairs):
            results += await self._check_batch(library_id, library_uid, batch)
        return results

    async def _check_batch(
        self, library_id: str, library_uid: str, batch: Sequence[CandidatePair]
    ) -> list[bool | None]:
        image_ids = list(dict.fromkeys(image_id for a, b, _ in batch for image_id in (a, b)))
        stored = await self.catalog.get_thumbnails(library_id, image_ids, library_uid=library_uid)
        thumbnails = {
            image_id: content
            for image_id, content in zip(image_ids, stored, strict=True)
            if content
        }
        rows = {image_id: row for row, image_id in enumerate(thumbnails)}
        complete = [number for number, (a, b, _) in enumerate(batch) if a in rows and b in rows]
        results: list[bool | None] = [None] * len(batch)
        if not complete:
            return results
        pixel_evidence = await self.embedding.check_copies(
            list(thumbnails.values()),
            [(rows[batch[number][0]], rows[batch[number][1]]) for number in complete],
        )
        for number, pixels in zip(complete, pixel_evidence, strict=True):
            a, b, embeddings = batch[number]
            if pixels is None:
                _log_unreadable(library_id, a, b)
            else:
                results[number] = self.classifier.is_copy(embeddings, pixels)
        return results


def _log_unreadable(library_id: str, *image_ids: str) -> None:
    logger().warning("duplicates.unreadable_thumbnail", library=library_id, one_of=list(image_ids))


def _batches(pairs: Sequence[CandidatePair]) -> Iterator[Sequence[CandidatePair]]:
    """Split pairs into batches, in their order, with at most `MAX_THUMBNAILS` images each."""
    batch: list[CandidatePair] = []
    image_ids: set[str] = set()
    for pair in pairs:
        if len(image_ids.union(pair[:2])) > MAX_THUMBNAILS:
            yield batch
            batch, image_ids = [], set()
        batch.append(pair)
        image_ids.update(pair[:2])
    if batch:
        yield batch
