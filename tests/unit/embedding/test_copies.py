"""Checks of pairs of thumbnails: pixel evidence, unreadable pictures and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio
from PIL import Image, ImageEnhance, ImageOps

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.embedding.comparison.copies import CopyChecker
from imagesearch_services.embedding.runtime import Runtime
from tests.decoding import InProcessDecoder
from tests.pictures import encoded, photo, png_header


@pytest_asyncio.fixture
async def checker() -> AsyncIterator[CopyChecker]:
    runtime = Runtime(
        workers=2, pixel_budget=10_000_000, overload_retry_s=0.5, decoder=InProcessDecoder()
    )
    yield CopyChecker(runtime)
    runtime.close()


async def refusal(
    checker: CopyChecker, contents: Sequence[bytes], pairs: Sequence[tuple[int, int]]
) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await checker.check(contents, pairs)
    return caught.value


async def test_the_pixels_of_aligned_copies_agree(checker: CopyChecker) -> None:
    original = photo(0)
    edits = [
        original,
        ImageOps.mirror(original),
        ImageEnhance.Brightness(original).enhance(0.6),
        original.crop((30, 20, 300, 220)),
        original.rotate(90, expand=True),
    ]
    pictures = [encoded(picture) for picture in edits]
    for evidence in await checker.check(pictures, [(0, row) for row in range(1, len(pictures))]):
        assert evidence is not None
        assert evidence.agreement > 0.85
        assert max(evidence.shown_of_first, evidence.shown_of_second) > 0.9


async def test_the_pixels_of_different_pictures_do_not_agree(checker: CopyChecker) -> None:
    pictures = [encoded(photo(seed)) for seed in range(5)]
    pairs = [(a, b) for a in range(5) for b in range(a)]
    for evidence in await checker.check(pictures, pairs):
        assert evidence is not None
        shown = max(evidence.shown_of_first, evidence.shown_of_second)
        assert evidence.agreement * shown < 0.7


async def test_a_picture_without_texture_does_not_agree_with_others(checker: CopyChecker) -> None:
    grey = encoded(Image.new("RGB", (200, 100), "grey"))
    (evidence,) = await checker.check([grey, encoded(photo(1))], [(0, 1)])
    assert evidence is not None
    assert evidence.inlier_count == 0
    assert evidence.agreement < 0.5


@pytest.mark.parametrize(
    "content",
    [
        b"no picture",
        encoded(photo(2))[:2000],
        encoded(Image.new("RGB", (1025, 20))),
        png_header(60_000, 60_000),
        encoded(Image.new("RGB", (15, 200))),
    ],
    ids=["not a picture", "truncated", "too long", "decompression bomb", "too small"],
)
async def test_an_invalid_thumbnail_does_not_affect_other_pairs(
    checker: CopyChecker, content: bytes
) -> None:
    pictures = [encoded(photo(1)), content, encoded(photo(1))]
    bad, good, bad_again = await checker.check(pictures, [(0, 1), (0, 2), (1, 2)])
    assert (bad, bad_again) == (None, None)
    assert good is not None
    assert good.agreement > 0.95


async def test_the_error_of_an_empty_picture_names_its_field(checker: CopyChecker) -> None:
    error = await refusal(checker, [encoded(photo(1)), b""], [(0, 1)])
    assert error.reason is Reason.FIELD_REQUIRED
    assert error.fields[0].field == "images[1].content"


@pytest.mark.parametrize("pairs", [[(0, 0)], [(0, 2)], [(-1, 0)], [(0, 1)] * 1001])
async def test_invalid_pairs_and_too_many_pairs_are_refused(
    checker: CopyChecker, pairs: list[tuple[int, int]]
) -> None:
    small = encoded(photo(1, (32, 32)))
    assert (await refusal(checker, [small, small], pairs)).reason is Reason.FIELD_INVALID


async def test_a_call_without_pairs_or_with_more_than_a_hundred_pictures_is_refused(
    checker: CopyChecker,
) -> None:
    small = encoded(photo(1, (32, 32)))
    assert (await refusal(checker, [small], [])).reason is Reason.FIELD_REQUIRED
    assert (await refusal(checker, [small] * 101, [(0, 1)])).reason is Reason.FIELD_INVALID


async def test_a_call_over_the_pixel_budget_is_refused_with_a_retry_delay() -> None:
    runtime = Runtime(
        workers=1, pixel_budget=320 * 240, overload_retry_s=0.25, decoder=InProcessDecoder()
    )
    checker = CopyChecker(runtime)
    pictures = [encoded(photo(seed)) for seed in range(2)]
    first = asyncio.create_task(checker.check(pictures, [(0, 1)]))
    while runtime.budget.free:  # noqa: ASYNC110  # until the first call was admitted
        await asyncio.sleep(0.001)
    error = await refusal(checker, pictures, [(0, 1)])
    assert error.reason is Reason.OVERLOADED
    assert error.retry_after_s == 0.25
    assert len(await first) == 1
    runtime.close()


async def test_headers_are_not_read_in_the_event_loop(checker: CopyChecker) -> None:
    call = asyncio.ensure_future(checker.check([b"no picture"] * 100, [(0, 1)]))
    await asyncio.sleep(0)  # a result from a thread takes at least one more iteration
    assert not call.done()
    assert await call == [None]
