"""Who answers: the whole suite through its public contract, and perceptual hashes."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import imagehash
import numpy as np
import numpy.typing as npt
import pdqhash
from PIL import Image

from imagesearch.client import Client, request_builders
from imagesearch.gateway.v1.search_pb2 import Match
from imagesearch.type.v1.library_type_pb2 import LibraryType
from imagesearch_services.models.copies.placements import PixelBox
from tests.benchmarks.copies.scoring import Candidate

Bits = npt.NDArray[np.bool_]

ADD_BATCH = 50
GIVEN = 10
"""Candidates of each answer."""

DEFAULT_RATE = 0.01
"""False-positive rate of the suite's default threshold."""

ROUNDING = 1e-3
"""Relative slack of that comparison, as the Gateway's own."""

SMALLEST_RATE = 1e-300


class SuiteAnswerer:
    """The Gateway of a running suite."""

    name = "suite"

    def __init__(self, client: Client, library_id: str) -> None:
        self._client = client
        self._library = client.create_library(
            library_id=library_id,
            library_type=LibraryType.LIBRARY_TYPE_WHOLE_IMAGE,
            thumbnails_disabled=True,
        ).name
        self._ids: dict[str, str] = {}

    def add(self, pictures: Iterable[tuple[str, bytes]]) -> None:
        """Store pictures in batches.

        Raises:
            RuntimeError: one was refused.
        """
        for batch in _batches(pictures):
            answer = self._client.batch_add_images(
                parent=self._library,
                requests=[
                    request_builders.add_image(image_id=name.replace("/", "%2F"), image=content)
                    for name, content in batch
                ],
            )
            for (name, _), result in zip(batch, answer.results, strict=True):
                if result.HasField("error"):
                    raise RuntimeError(f"{name} was refused: {result.error}")

    def query(self, content: bytes) -> Sequence[Candidate]:
        """Search with any score taken, so that ranking and thresholds can both be read.

        The similarity is -log10 of the false-positive rate of a query, on which matches of the
        whole and of regions can be compared.
        """
        answer = self._client.search_images(
            parent=self._library, image=content, min_score=0.0, page_size=GIVEN
        )
        return [
            Candidate(
                match.image.image_id.replace("%2F", "/"),
                -math.log10(max(match.false_positive_rate, SMALLEST_RATE)),
                is_answer=match.false_positive_rate <= DEFAULT_RATE * (1 + ROUNDING),
                box=_box(match),
            )
            for match in answer.matches
        ]


class HashAnswerer:
    """A perceptual hash of the whole picture, compared by how many bits differ."""

    def __init__(self, name: str, bits_of: Callable[[Image.Image], Bits]) -> None:
        """Take a hash function that gives an array of booleans."""
        self.name = name
        self._bits_of = bits_of
        self._names: list[str] = []
        self._rows: list[Bits] = []
        self._stored: Bits | None = None

    def add(self, pictures: Iterable[tuple[str, bytes]]) -> None:
        """Hash and keep."""
        for name, content in pictures:
            self._names.append(name)
            self._rows.append(self._hash(content))
        self._stored = np.stack(self._rows)

    def query(self, content: bytes) -> Sequence[Candidate]:
        """Give those with the fewest differing bits; similarity is the share that agrees.

        There is no default threshold, so none counts as an answer.
        """
        if self._stored is None:
            return []
        agreeing = (self._stored == self._hash(content)).mean(axis=1)
        best = np.argsort(-agreeing, kind="stable")[:GIVEN]
        return [Candidate(self._names[row], float(agreeing[row]), is_answer=False) for row in best]

    def _hash(self, content: bytes) -> Bits:
        with Image.open(io.BytesIO(content)) as image:
            return self._bits_of(image.convert("RGB"))


def pdq() -> HashAnswerer:
    """Facebook's PDQ, 256 bits."""
    return HashAnswerer("PDQ", lambda image: pdqhash.compute(np.asarray(image))[0].astype(np.bool_))


def phash() -> HashAnswerer:
    """DCT hash of 64 bits (ImageHash)."""
    return HashAnswerer("pHash", lambda image: np.asarray(imagehash.phash(image).hash).ravel())


def _batches(pictures: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Group into batches within what one message may hold."""
    pictures = iter(pictures)
    while batch := list(itertools.islice(pictures, ADD_BATCH)):
        yield batch


def _box(match: Match) -> PixelBox | None:
    if not match.HasField("query_box"):
        return None
    box = match.query_box
    return PixelBox(box.x_min, box.y_min, box.x_max, box.y_max)
