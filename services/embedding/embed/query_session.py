"""Embeds a query picture in steps: the picture is sent once, and decoded once if possible."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from imagesearch_services.common.errors import field_error, missing_field, unwrap
from imagesearch_services.common.types import StepTiming
from imagesearch_services.embedding.embed.embedder import Embedder
from imagesearch_services.embedding.embed.items import MAX_PROPOSED_REGIONS, EmbeddedPicture, Item
from imagesearch_services.embedding.pictures.reusable_file import ReusableFile
from imagesearch_services.embedding.runtime import Runtime

KEEP_S = 2.0
"""Seconds for which decoded pixels are kept between two steps; a search in the Catalog takes a
fraction of this time."""


class QuerySession:
    """The steps of one stream; a context manager, which gives the held pixels back at its end.

    Between two steps the decoded picture is kept if the pixel budget has room for it. Each step is
    admitted like any other call, after the held pixels have been given back.
    """

    def __init__(self, embedder: Embedder, runtime: Runtime, *, keep_s: float = KEEP_S) -> None:
        self._embedder = embedder
        self._runtime = runtime
        self._keep_s = keep_s
        self._file: ReusableFile | None = None
        self._held_pixels = 0
        self._expiry: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._drop()

    async def embed(
        self, content: bytes, spaces: Sequence[str], max_proposed_regions: int
    ) -> tuple[EmbeddedPicture, Sequence[StepTiming]]:
        """Embed the whole picture or its proposed regions.

        Args:
            content: the picture file in the first step, empty in later steps.
            spaces: names of the vector spaces.
            max_proposed_regions: maximum regions to propose and embed; 0: the whole picture is
                embedded.

        Raises:
            ServiceError: FIELD_REQUIRED, FIELD_INVALID, an IMAGE_… reason, OVERLOADED,
                MODEL_NOT_SERVED, MODEL_SERVER_UNAVAILABLE or DEADLINE_EXCEEDED.
        """
        if not 0 <= max_proposed_regions <= MAX_PROPOSED_REGIONS:
            raise field_error(
                "max_proposed_regions",
                f"is {max_proposed_regions}; must be 0 to {MAX_PROPOSED_REGIONS}",
            )
        file = await self._open(content)
        self._give_back()
        item = Item(file.content, max_proposed_regions=max_proposed_regions, file=file)
        embedded = await self._embedder.embed([item], spaces)
        (outcome,) = embedded.pictures
        self._hold(file)
        return unwrap(outcome), embedded.timings

    async def _open(self, content: bytes) -> ReusableFile:
        if self._file is None:
            if not content:
                raise missing_field("image.content")
            self._file = ReusableFile(await self._runtime.start_call().open(content))
        elif content:
            raise field_error("image", "must be sent only in the first request of the stream")
        return self._file

    def _hold(self, file: ReusableFile) -> None:
        """Keep the decoded picture if the budget has room for it."""
        pixels = file.kept_pixels
        if not self._runtime.budget.try_take(pixels):
            file.drop_picture()
            return
        self._held_pixels = pixels
        self._expiry = asyncio.get_running_loop().call_later(self._keep_s, self._drop)

    def _give_back(self) -> None:
        """Give the held pixels back to the budget, but keep the picture for the next step."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._held_pixels:
            self._runtime.budget.give_back(self._held_pixels)
            self._held_pixels = 0

    def _drop(self) -> None:
        self._give_back()
        if self._file is not None:
            self._file.drop_picture()
