"""The calls of the overload test: their mix, their callers and their prepared bytes."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagesearch.gateway.v1 import image_pb2, image_search_service_pb2, search_pb2
from imagesearch.type.v1 import picture_pb2

SERVICE = image_search_service_pb2.DESCRIPTOR.services_by_name["ImageSearchService"].full_name

MIX = {"search": 0.74, "stranger": 0.05, "add": 0.17, "batch": 0.02, "get": 0.02}
"""Share of each kind of call. A stranger is a search whose original is not stored: its regions are
searched, too."""
CALLERS = {"flood": 0.7, "second": 0.25, "third": 0.05}
"""Share of the calls that each caller sends."""
BATCH_PICTURES = 16
ADDED_IDS = 400
"""Number of images that adding writes over and over, so that the library keeps its size."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is encoded already, so that sending it costs the client little."""

    kind: str
    method: str
    body: bytes


@dataclass(frozen=True)
class Corpus:
    """The pictures: stored and searched, searched only, added."""

    stored: Sequence[bytes]
    strangers: Sequence[bytes]
    to_add: Sequence[bytes]


def read_corpus(folder: Path, stored: int) -> Corpus:
    files = sorted(folder.rglob("*.jpg"))
    strangers, to_add = 60, 240
    needed = stored + strangers + to_add
    if len(files) < needed:
        sys.exit(f"{folder} has {len(files)} photos, {needed} are required")
    contents = iter([file.read_bytes() for file in files[:: len(files) // needed][:needed]])
    return Corpus(
        list(itertools.islice(contents, stored)),
        list(itertools.islice(contents, strangers)),
        list(contents),
    )


def prepare(library: str, corpus: Corpus) -> dict[str, list[Prepared]]:
    """Return the requests of each kind."""
    adds = [
        image_pb2.AddImageRequest(
            parent=library,
            image_id=f"added-{number}",
            image=picture_pb2.ImageContent(content=corpus.to_add[number % len(corpus.to_add)]),
            allow_overwrite=True,
        )
        for number in range(ADDED_IDS)
    ]
    batches = [
        image_pb2.BatchAddImagesRequest(
            parent=library, requests=adds[first : first + BATCH_PICTURES]
        )
        for first in range(0, ADDED_IDS - BATCH_PICTURES, BATCH_PICTURES)
    ]
    gets = [
        image_pb2.GetImageRequest(name=f"{library}/images/stored-{number}") for number in range(50)
    ]
    return {
        "search": _prepared("search", "SearchImages", _searches(library, corpus.stored)),
        "stranger": _prepared("stranger", "SearchImages", _searches(library, corpus.strangers)),
        "add": _prepared("add", "AddImage", adds),
        "batch": _prepared("batch", "BatchAddImages", batches),
        "get": _prepared("get", "GetImage", gets),
    }


def endless(requests: dict[str, list[Prepared]], seed: int) -> Iterator[tuple[str, Prepared]]:
    """Yield callers and requests for ever, the same for the same seed.

    Every hundred requests have exactly the kinds of the mix, in random order, so that short phases
    are comparable.
    """
    chance = random.Random(seed)  # noqa: S311  # repeatable, not secret
    sources = {kind: itertools.cycle(of_kind) for kind, of_kind in requests.items()}
    deck = [kind for kind, share in MIX.items() for _ in range(round(100 * share))]
    callers, caller_shares = list(CALLERS), list(CALLERS.values())
    while True:
        chance.shuffle(deck)
        for kind, caller in zip(deck, chance.choices(callers, caller_shares, k=100), strict=True):
            yield caller, next(sources[kind])


def _searches(library: str, pictures: Sequence[bytes]) -> list[search_pb2.SearchImagesRequest]:
    return [
        search_pb2.SearchImagesRequest(
            parent=library, image=picture_pb2.ImageContent(content=content)
        )
        for content in pictures
    ]


def _prepared(
    kind: str,
    method: str,
    messages: Sequence[
        search_pb2.SearchImagesRequest
        | image_pb2.AddImageRequest
        | image_pb2.BatchAddImagesRequest
        | image_pb2.GetImageRequest
    ],
) -> list[Prepared]:
    path = f"/{SERVICE}/{method}"
    return [Prepared(kind, path, message.SerializeToString()) for message in messages]
