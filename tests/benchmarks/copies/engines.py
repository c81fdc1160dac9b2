"""The compared search engines: the suite through its public contract, and perceptual hashes."""

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
"""Images per BatchAddImages call."""
MAX_CANDIDATES = 10
"""Maximum candidates per query."""

DEFAULT_RATE = 0.01
"""False-positive rate of the suite's default threshold."""

ROUNDING = 1e-3
"""Relative tolerance when a rate is compared with `DEFAULT_RATE`, as in the Gateway."""

SMALLEST_RATE = 1e-300
"""Lower bound of rates, so that their logarithm is finite."""


class SuiteEngine:
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
            RuntimeError: The suite refused a picture.
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
        """Search without a minimum score, so that ranking and thresholds can both be evaluated.

        The similarity is -log10 of the false-positive rate, which makes matches of the whole
        picture and of regions comparable.
        """
        answer = self._client.search_images(
            parent=self._library, image=content, min_score=0.0, page_size=MAX_CANDIDATES
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


class HashEngine:
    """Search by the Hamming distance of perceptual hashes of whole pictures."""

    def __init__(self, name: str, bits_of: Callable[[Image.Image], Bits]) -> None:
        """Create an empty index for a hash function."""
        self.name = name
        self._bits_of = bits_of
        self._names: list[str] = []
        self._rows: list[Bits] = []
        self._stored: Bits | None = None

    def add(self, pictures: Iterable[tuple[str, bytes]]) -> None:
        """Hash and store pictures."""
        for name, content in pictures:
            self._names.append(name)
            self._rows.append(self._hash(content))
        self._stored = np.stack(self._rows)

    def query(self, content: bytes) -> Sequence[Candidate]:
        """Return the stored pictures with the fewest differing bits.

        The similarity is the share of equal bits. There is no default threshold, so no candidate
        is an answer.
        """
        if self._stored is None:
            return []
        equal = (self._stored == self._hash(content)).mean(axis=1)
        best = np.argsort(-equal, kind="stable")[:MAX_CANDIDATES]
        return [Candidate(self._names[row], float(equal[row]), is_answer=False) for row in best]

    def _hash(self, content: bytes) -> Bits:
        with Image.open(io.BytesIO(content)) as image:
            return self._bits_of(image.convert("RGB"))


def pdq() -> HashEngine:
    """Return a search by Facebook's PDQ, 256 bits."""
    return HashEngine("PDQ", lambda image: pdqhash.compute(np.asarray(image))[0].astype(np.bool_))


def phash() -> HashEngine:
    """Return a search by the DCT hash of ImageHash, 64 bits."""
    return HashEngine("pHash", lambda image: np.asarray(imagehash.phash(image).hash).ravel())


def _batches(pictures: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Split pictures into batches that fit into a message."""
    pictures = iter(pictures)
    while batch := list(itertools.islice(pictures, ADD_BATCH)):
        yield batch


def _box(match: Match) -> PixelBox | None:
    if not match.HasField("query_box"):
        return None
    box = match.query_box
    return PixelBox(box.x_min, box.y_min, box.x_max, box.y_max)
