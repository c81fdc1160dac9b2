"""Converts groups to updates, and tracks the position that page tokens contain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from imagesearch_services.gateway.duplicates.library_reader import LibraryReader
from imagesearch_services.gateway.duplicates.model import (
    DuplicateImage,
    DuplicatesUpdate,
    Group,
    Uid,
)
from imagesearch_services.gateway.duplicates.tokens import DuplicateTokens, Position
from imagesearch_services.gateway.scoring.calibration import Calibration


@dataclass(slots=True, kw_only=True)
class Emitter:
    """Produces the updates of a call, each with a token of the position after it."""

    reader: LibraryReader
    tokens: DuplicateTokens
    calibration: Calibration
    position: Position

    async def complete(
        self, uid: Uid, groups: Sequence[Group], total_count: int
    ) -> AsyncIterator[DuplicatesUpdate]:
        """Complete an image and yield its groups. Only the last token points past the image."""
        before = self.position
        self.position = replace(
            before, after=uid, checked_count=before.checked_count + 1, sending=b"", sent_count=0
        )
        sent_count = before.sent_count if before.sending == uid else 0
        encode = self.tokens.encode
        for number, members in enumerate(groups[sent_count:], sent_count):
            group = await self._read(members)
            if not group:
                continue
            is_last = number + 1 == len(groups)
            after_group = replace(before, sending=uid, sent_count=number + 1)
            yield DuplicatesUpdate(
                group,
                self.position.checked_count,
                total_count,
                encode(self.position if is_last else after_group),
                encode(replace(before, sending=uid, sent_count=number)),
            )

    def turn_page(self, catalog_token: str, total_count: int) -> DuplicatesUpdate:
        """Move to the Catalog's next page, and return the progress."""
        self.position = replace(self.position, catalog_token=catalog_token)
        token = self.tokens.encode(self.position)
        return DuplicatesUpdate((), self.position.checked_count, total_count, token)

    def finish(self) -> DuplicatesUpdate:
        """Return the last update."""
        return DuplicatesUpdate((), self.position.checked_count, self.position.checked_count, "")

    async def _read(self, members: Group) -> list[DuplicateImage]:
        """Read the images of a group; empty if the image to keep or all copies were deleted."""
        keep, *copies = members
        images = {image.uid: image for image in await self.reader.images([m.uid for m in members])}
        if keep.uid not in images:
            return []
        group = [DuplicateImage(images[keep.uid], 1.0, keep.pixels_agree)]
        group += [
            DuplicateImage(
                images[member.uid], self.calibration.score(member.closeness), member.pixels_agree
            )
            for member in copies
            if member.uid in images
        ]
        return group if len(group) > 1 else []
