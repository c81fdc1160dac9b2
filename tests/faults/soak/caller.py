"""An honest caller: it changes and searches its own images, and checks every answer."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc

from imagesearch.client import ImageSearchError
from tests.faults.soak import bad_callers
from tests.faults.soak.changes import LIBRARIES, ChangingCaller, resource_name
from tests.faults.soak.journal import Image

EXPECTED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
"""Answers to hostile pictures."""
PAGE = 50


@dataclass
class Caller(ChangingCaller):
    """One caller: its calls in random order."""

    async def run(self, pause_s: float) -> None:
        """Call until cancelled."""
        works: list[tuple[float, str, Callable[[], Awaitable[None]]]] = [
            (6, "change", self.change),
            (3, "search stored", self.search_stored),
            (2, "search deleted", self.search_deleted),
            (2, "get", self.get),
            (1, "batch", self.add_batch),
            (1, "page", self.page),
            (1, "thumbnail", self.thumbnail),
            (0.5, "library", self.short_lived_library),
            (0.5, "duplicates", self.duplicates),
            (0.5, "compare", self.compare),
            (0.5, "detect", self.detect),
            (1, "hostile picture", self.hostile_picture),
            (0.5, "bad caller", self.bad_caller),
        ]
        weights = [weight for weight, _, _ in works]
        while True:
            (_, name, work) = self.chance.choices(works, weights)[0]
            began_s = time.monotonic()
            self.tally.calls[name] += 1
            try:
                await work()
            except ImageSearchError as error:
                self.note(name, error, began_s)
            await asyncio.sleep(self.chance.uniform(0.5, 1.5) * pause_s)

    async def search_stored(self) -> None:
        library = self.chance.choice(list(LIBRARIES))
        if not (own := self.journal.of_library(library, self.name)):
            return
        image = self.chance.choice(own)
        found = await self._found(image, self.journal.pictures[image])
        if image[1] in found:
            self.tally.calls[f"found, {library}"] += 1
        elif library == "soak-element":
            # A picture without texture is stored with a warning, and never found.
            self.tally.calls["not found, soak-element"] += 1
        else:
            self.tally.fault("an acknowledged image is not found", image=image)

    async def search_deleted(self) -> None:
        deleted = [image for image in self.journal.deleted if image[1].startswith(self.name)]
        if not deleted:
            return
        image = self.chance.choice(deleted)
        if image[1] in await self._found(image, self.journal.deleted[image]):
            self.tally.fault("a deleted image is found", image=image)

    async def get(self) -> None:
        if known := [*self.journal.pictures, *self.journal.deleted]:
            await self.check(self.chance.choice(known))

    async def check(self, image: Image) -> None:
        """Check that an image exists, or does not exist, as acknowledged."""
        is_own = image[1].startswith(self.name)
        try:
            stored = await self.client.get_image(name=resource_name(image))
        except ImageSearchError as error:
            if error.reason != "IMAGE_NOT_FOUND":
                raise
            if is_own and image in self.journal.pictures:
                self.tally.fault("an acknowledged image does not exist", image=image)
            return
        if not is_own:  # its owner may change it at this moment
            return
        if image in self.journal.deleted:
            self.tally.fault("a deleted image exists", image=image)
        elif "picture" in stored.tags:
            picture = stored.tags["picture"].int_value
            if picture != self.journal.pictures[image]:
                self.tally.fault("an image has an older picture", image=image)

    async def page(self) -> None:
        library = self.chance.choice(list(LIBRARIES))
        await self.client.list_images(
            parent=f"libraries/{library}", page_size=20, filter=f'tags.caller = "{self.name}"'
        )

    async def thumbnail(self) -> None:
        if own := self.journal.of_library("soak-whole", self.name):
            await self.client.get_thumbnail(name=resource_name(self.chance.choice(own)))

    async def short_lived_library(self) -> None:
        library_type, _ = self.chance.choice(list(LIBRARIES.values()))
        library_id = f"short-{uuid.uuid4().hex[:12]}"
        name, creation_id = f"libraries/{library_id}", uuid.uuid4().hex
        await self.definite(
            lambda: self.client.create_library(
                library_id=library_id, library_type=library_type, request_id=creation_id
            )
        )
        for number in range(2):
            request_id = uuid.uuid4().hex
            await self.definite(
                lambda request_id=request_id, number=number: self.client.add_image(
                    parent=name,
                    image=self.pictures[number],
                    image_id=str(number),
                    request_id=request_id,
                )
            )
        deletion_id = uuid.uuid4().hex
        await self.definite(lambda: self.client.delete_library(name=name, request_id=deletion_id))
        try:
            await self.client.get_library(name=name)
        except ImageSearchError as error:
            if error.reason != "LIBRARY_NOT_FOUND":
                raise
        else:
            self.tally.fault("a deleted library exists", library=name)

    async def duplicates(self) -> None:
        async for _ in self.client.find_duplicates(parent="libraries/soak-whole"):
            pass

    async def compare(self) -> None:
        first, second = self.chance.sample(self.pictures, 2)
        await self.client.compare_images(image_a=first, image_b=second)

    async def detect(self) -> None:
        await self.client.detect_subjects(image=self.chance.choice(self.pictures))

    async def hostile_picture(self) -> None:
        picture = next(bad_callers.HOSTILE)
        try:
            await self.client.search_images(parent="libraries/soak-whole", image=picture)
        except ImageSearchError as error:
            if error.code not in EXPECTED:
                raise

    async def bad_caller(self) -> None:
        target, library = self.client.target, "libraries/soak-whole"
        works = (
            lambda: bad_callers.half_sent_call(target),
            lambda: bad_callers.half_sent_bytes(target),
            lambda: bad_callers.cancelled_search(
                target, library, self.chance.choice(self.pictures)
            ),
            lambda: bad_callers.unread_duplicates(target, library),
        )
        try:
            await self.chance.choice(works)()
        except (OSError, grpc.aio.AioRpcError):
            self.tally.calls["bad caller turned away"] += 1

    async def _found(self, image: Image, picture: int) -> set[str]:
        answer = await self.client.search_images(
            parent=f"libraries/{image[0]}",
            image=self.pictures[picture],
            page_size=PAGE,
        )
        return {match.image.image_id for match in answer.matches}
