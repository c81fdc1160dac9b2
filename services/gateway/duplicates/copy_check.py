"""Decides whether pairs of similar images are copies, by aligning their thumbnails.

The Catalog returns the thumbnails, the Embedding service aligns them and measures the agreement of
the pixels, and the classifier decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from imagesearch_services.common.logs import logger
from imagesearch_services.gateway.duplicates.copy_classifier import CopyClassifier
from imagesearch_services.gateway.duplicates.model import EmbeddingEvidence
from imagesearch_services.gateway.ports import Catalog, Embedding

MAX_THUMBNAILS = 100
"""Maximum thumbnails per call to the Embedding service."""

CandidatePair = tuple[str, str, EmbeddingEvidence]
"""The ids of two images, and the evidence of their embeddings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyCheck:
    """Checks pairs of stored images for copies."""

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
            Whether the images of each pair are copies; None if a thumbnail is missing or
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
        alignable = [index for index, (a, b, _) in enumerate(batch) if a in rows and b in rows]
        results: list[bool | None] = [None] * len(batch)
        if not alignable:
            return results
        pixel_evidence = await self.embedding.check_copies(
            list(thumbnails.values()),
            [(rows[batch[index][0]], rows[batch[index][1]]) for index in alignable],
        )
        for index, pixels in zip(alignable, pixel_evidence, strict=True):
            a, b, embeddings = batch[index]
            if pixels is None:
                logger().warning(
                    "duplicates.thumbnail_unreadable", library=library_id, image_ids=[a, b]
                )
            else:
                results[index] = self.classifier.is_copy(embeddings, pixels)
        return results


def _batches(pairs: Sequence[CandidatePair]) -> Iterator[Sequence[CandidatePair]]:
    """Split pairs into batches of at most `MAX_THUMBNAILS` images; the order stays."""
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
