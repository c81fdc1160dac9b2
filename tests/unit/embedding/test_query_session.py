"""Embedding of a query in steps: decoded pictures, pixel budget, refused requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest
import pytest_asyncio

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.embedding.embed.embedder import Embedded, Embedder
from imagesearch_services.embedding.embed.items import EmbeddedPicture, Item
from imagesearch_services.embedding.embed.query_session import QuerySession
from imagesearch_services.embedding.pictures.picture import Picture
from imagesearch_services.embedding.pictures.reusable_file import ReusableFile
from imagesearch_services.embedding.runtime import Runtime
from tests.decoding import InProcessDecoder, opened
from tests.pictures import encoded, photo

SMALL = encoded(photo(1, (320, 240)), "JPEG")
LARGE = encoded(photo(1, (1600, 1200)), "JPEG")
SPACES = ("copies@1",)
DECODER = InProcessDecoder()


@dataclass
class FakeEmbedder:
    """Decodes each picture at the next reduction, without embedding it."""

    reductions: list[float]
    decoded: list[Picture] = field(default_factory=list)
    error: ServiceError | None = None

    async def embed(self, items: Sequence[Item], spaces: Sequence[str]) -> Embedded:
        assert tuple(spaces) == SPACES
        (item,) = items
        assert item.file is not None
        reduction = self.reductions[len(self.decoded)]
        picture = await item.file.decode(DECODER, reduction)
        self.decoded.append(picture)
        return Embedded([self.error or EmbeddedPicture(item.file.describe(picture), ())], [], [])


@pytest_asyncio.fixture
async def runtime() -> AsyncIterator[Runtime]:
    runtime = Runtime(
        workers=1, pixel_budget=1_000_000, overload_retry_s=0.5, decoder=InProcessDecoder()
    )
    yield runtime
    runtime.close()


def session(runtime: Runtime, *reductions: float, keep_s: float = 60) -> QuerySession:
    embedder = cast("Embedder", FakeEmbedder(list(reductions)))
    return QuerySession(embedder, runtime, keep_s=keep_s)


def decoded(session: QuerySession) -> list[Picture]:
    return cast("FakeEmbedder", session._embedder).decoded


def held_pixels(runtime: Runtime) -> int:
    return runtime.budget.pixels - runtime.budget.free


async def test_a_picture_is_decoded_once_at_one_resolution() -> None:
    file = ReusableFile(opened(LARGE))
    half = await file.decode(DECODER, 2.5)
    assert half.image.size == (800, 600)
    assert await file.decode(DECODER, 2.0) is half
    assert file.kept_pixels == 800 * 600


async def test_a_picture_is_decoded_again_at_a_higher_resolution_and_kept() -> None:
    file = ReusableFile(opened(LARGE))
    first = file.describe(await file.decode(DECODER, 2.0))
    full = await file.decode(DECODER, 1.0)
    assert full.image.size == (1600, 1200)
    assert await file.decode(DECODER, 2.0) is full
    assert file.describe(full) is first


async def test_a_dropped_picture_is_decoded_again() -> None:
    file = ReusableFile(opened(SMALL))
    first = await file.decode(DECODER)
    file.drop_picture()
    assert file.kept_pixels == 0
    again = await file.decode(DECODER)
    assert again.image.tobytes() == first.image.tobytes()


async def test_a_format_without_reduced_decoding_is_decoded_once() -> None:
    file = ReusableFile(opened(encoded(photo(1, (1600, 1200)), "PNG")))
    assert await file.decode(DECODER, 2.0) is await file.decode(DECODER, 1.0)


async def test_two_steps_share_the_decoded_picture(runtime: Runtime) -> None:
    with session(runtime, 1.0, 1.0) as steps:
        await steps.embed(SMALL, SPACES, 0)
        await steps.embed(b"", SPACES, 24)
        first, second = decoded(steps)
    assert first is second


async def test_kept_pixels_count_toward_the_budget_until_the_session_ends(
    runtime: Runtime,
) -> None:
    with session(runtime, 2.0, 2.0) as steps:
        await steps.embed(LARGE, SPACES, 0)
        assert held_pixels(runtime) == 800 * 600
        await steps.embed(b"", SPACES, 24)
        assert held_pixels(runtime) == 800 * 600
    assert held_pixels(runtime) == 0


async def test_a_picture_is_dropped_if_the_budget_is_full(runtime: Runtime) -> None:
    assert runtime.budget.try_take(runtime.budget.free)
    with session(runtime, 1.0, 1.0) as steps:
        await steps.embed(SMALL, SPACES, 0)
        await steps.embed(b"", SPACES, 24)
        first, second = decoded(steps)
    assert first is not second
    assert runtime.budget.free == 0


async def test_a_picture_is_dropped_if_the_next_step_is_late(runtime: Runtime) -> None:
    with session(runtime, 1.0, 1.0, keep_s=0.01) as steps:
        await steps.embed(SMALL, SPACES, 0)
        async with asyncio.timeout(10):
            while held_pixels(runtime):  # noqa: ASYNC110  # until the timer has run
                await asyncio.sleep(0.01)
        await steps.embed(b"", SPACES, 24)
        first, second = decoded(steps)
    assert first is not second
    assert held_pixels(runtime) == 0


async def test_an_invalid_picture_raises_its_error_and_holds_no_pixels(runtime: Runtime) -> None:
    with session(runtime, 1.0) as steps:
        cast("FakeEmbedder", steps._embedder).error = ServiceError(Reason.IMAGE_TRUNCATED, "short")
        with pytest.raises(ServiceError, match="short"):
            await steps.embed(SMALL, SPACES, 0)
    assert held_pixels(runtime) == 0


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([(b"", 0)], Reason.FIELD_REQUIRED),
        ([(b"text", 0)], Reason.IMAGE_UNREADABLE),
        ([(SMALL, 65)], Reason.FIELD_INVALID),
        ([(SMALL, -1)], Reason.FIELD_INVALID),
        ([(SMALL, 0), (SMALL, 24)], Reason.FIELD_INVALID),
    ],
    ids=["no picture", "not a picture", "too many regions", "negative", "picture sent twice"],
)
async def test_invalid_requests_are_refused(
    runtime: Runtime, steps: list[tuple[bytes, int]], reason: Reason
) -> None:
    *valid, (content, max_proposed_regions) = steps
    with session(runtime, 1.0, 1.0) as opened:
        for valid_content, count in valid:
            await opened.embed(valid_content, SPACES, count)
        with pytest.raises(ServiceError) as caught:
            await opened.embed(content, SPACES, max_proposed_regions)
    assert caught.value.reason is reason
    assert held_pixels(runtime) == 0
