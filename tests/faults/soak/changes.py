"""Changes of a caller's own images, repeated until their outcome is known."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from imagesearch.client import AsyncClient, ImageSearchError, LibraryType, request_builders
from tests.faults.soak.journal import Image, Journal
from tests.faults.soak.outages import Outages

T = TypeVar("T")

TRANSIENT = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
}
LIBRARIES = {
    "soak-whole": (LibraryType.LIBRARY_TYPE_WHOLE_IMAGE, 40),
    "soak-element": (LibraryType.LIBRARY_TYPE_ELEMENT, 12),
    "soak-product": (LibraryType.LIBRARY_TYPE_PRODUCT, 12),
}
"""Type of each library, and the number of images that each caller keeps in it."""
GIVE_UP_S = 300.0
"""Time after which a change that is not answered is a fault, in seconds."""


@dataclass
class Tally:
    """What the callers did and saw."""

    write: Callable[[dict[str, Any]], None]
    calls: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def fault(self, kind: str, **details: object) -> None:
        """Record an answer that is wrong, or an error that nothing excuses."""
        self.faults[kind] += 1
        self.write({"kind": "fault", "fault": kind, **details})


@dataclass
class ChangingCaller:
    """The changes of one caller; its images have ids that start with its name."""

    name: str
    client: AsyncClient
    journal: Journal
    pictures: Sequence[bytes]
    outages: Outages
    tally: Tally
    chance: random.Random

    async def change(self) -> None:
        """Add, replace, delete or update an image, so that the number of images stays the same."""
        library, (_, wanted) = self.chance.choice(list(LIBRARIES.items()))
        own = self.journal.of_library(library, self.name)
        if len(own) < wanted or (len(own) == wanted and self.chance.random() < 0.5):
            await self.add((library, f"{self.name}-{uuid.uuid4().hex[:12]}"))
        elif self.chance.random() < 0.6:
            await self.delete(self.chance.choice(own))
        elif self.chance.random() < 0.5:
            await self.add(self.chance.choice(own))
        else:
            await self.update(self.chance.choice(own))

    async def add(self, image: Image) -> None:
        """Add or replace an image."""
        picture = self.chance.randrange(len(self.pictures))
        request_id = uuid.uuid4().hex
        self.journal.sent(image, picture)
        await self.definite(
            lambda: self.client.add_image(
                parent=f"libraries/{image[0]}",
                image=self.pictures[picture],
                image_id=image[1],
                tags={"picture": picture, "caller": self.name},
                allow_overwrite=True,
                request_id=request_id,
            )
        )
        self.journal.settled(image, picture)

    async def add_batch(self) -> None:
        """Add four images in one call."""
        library = "soak-whole"
        chosen = {
            (library, f"{self.name}-{uuid.uuid4().hex[:12]}"): self.chance.randrange(
                len(self.pictures)
            )
            for _ in range(4)
        }
        requests = [
            request_builders.add_image(
                image=self.pictures[picture],
                image_id=image_id,
                request_id=uuid.uuid4().hex,
                allow_overwrite=True,
            )
            for (_, image_id), picture in chosen.items()
        ]
        for image, picture in chosen.items():
            self.journal.sent(image, picture)

        async def send() -> None:
            answer = await self.client.batch_add_images(
                parent=f"libraries/{library}", requests=requests
            )
            for result in answer.results:
                if result.HasField("error"):
                    raise ImageSearchError.from_status(result.error)

        await self.definite(send)
        for image, picture in chosen.items():
            self.journal.settled(image, picture)
        for image in self.journal.of_library(library, self.name)[: len(chosen)]:
            await self.delete(image)

    async def delete(self, image: Image) -> None:
        request_id = uuid.uuid4().hex
        self.journal.sent(image, None)
        try:
            await self.definite(
                lambda: self.client.delete_image(name=resource_name(image), request_id=request_id)
            )
        except ImageSearchError as error:
            if error.reason != "IMAGE_NOT_FOUND":
                raise
            self.tally.fault("an acknowledged image to delete does not exist", image=image)
        self.journal.settled(image, None)

    async def update(self, image: Image) -> None:
        value, request_id = self.chance.randrange(1000), uuid.uuid4().hex
        await self.definite(
            lambda: self.client.update_image(
                name=resource_name(image), set_tags={"number": value}, request_id=request_id
            )
        )
        stored = await self.definite(lambda: self.client.get_image(name=resource_name(image)))
        if stored.tags["number"].int_value != value:
            self.tally.fault("an acknowledged update is lost", image=image)

    async def definite(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call, which has a request id, until its outcome is known."""
        began_s = time.monotonic()
        while True:
            attempt_s = time.monotonic()
            try:
                return await call()
            except ImageSearchError as error:
                if error.code not in TRANSIENT or attempt_s - began_s > GIVE_UP_S:
                    raise
                self.note("repeated", error, attempt_s)
                await asyncio.sleep(max(0.2, error.retry_after_s or 0.0))

    def note(self, name: str, error: ImageSearchError, began_s: float) -> None:
        """Count an error; it is a fault if neither load nor an outage explains it."""
        self.tally.errors[f"{error.code.name} {error.reason}"] += 1
        is_load = error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        if is_load or (error.code in TRANSIENT and self.outages.disturbs(began_s)):
            return
        self.tally.fault(
            "unexpected error",
            call=name,
            code=error.code.name,
            reason=error.reason,
            message=error.message,
        )


def resource_name(image: Image) -> str:
    return f"libraries/{image[0]}/images/{image[1]}"
