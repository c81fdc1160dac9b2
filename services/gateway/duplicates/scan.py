"""A pass over a library that streams groups of copies as they are found.

    a page of images → their neighbors → verdicts on pairs → connected components → groups
                           (traversal)       (judging)        (graph)               (grouping)

Images are examined in the order of their uids, which never changes. A connected component is
explored, and its groups are sent, when its first image is examined. So a later call needs only the
uid of the last examined image to continue: components with an earlier image were already sent.
One exception: if an approximate index finds B from A but not A from B, a later call may split a
chain of copies differently from the first call.

Memory use: a page of images with their neighbors, without vectors; about 100 bytes for each image
of a component; a bounded set of compared pairs that are not copies.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from imagesearch_services.gateway.duplicates.emitting import Emitter
from imagesearch_services.gateway.duplicates.grouping import Grouping
from imagesearch_services.gateway.duplicates.library_reader import LibraryReader
from imagesearch_services.gateway.duplicates.model import DuplicatesUpdate, Group, Uid
from imagesearch_services.gateway.duplicates.state import ProcessedImages
from imagesearch_services.gateway.duplicates.traversal import Traversal
from imagesearch_services.gateway.model import StoredImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The scan of one call."""

    reader: LibraryReader
    traversal: Traversal
    grouping: Grouping
    emitter: Emitter
    processed: ProcessedImages

    async def run(self) -> AsyncGenerator[DuplicatesUpdate, None]:
        """Yield groups and progress, beginning at the emitter's position.

        Raises:
            ServiceError: LIBRARY_CHANGED.
        """
        while True:
            position = self.emitter.position
            page = await self.reader.page(position.catalog_token)
            images = [image for image in page.images if image.uid > position.after]
            groups = await self._groups(images)
            for image in images:
                updates = self.emitter.complete(
                    image.uid, groups.get(image.uid, ()), page.total_count
                )
                async for update in updates:
                    yield update
            if not page.next_page_token:
                break
            yield self.emitter.turn_page(page.next_page_token, page.total_count)
        yield self.emitter.finish()

    async def _groups(self, images: Sequence[StoredImage]) -> Mapping[Uid, Sequence[Group]]:
        """Return the groups found from the images, by the image with which they are sent."""
        if not images:
            return {}
        new = [image for image in images if image.uid not in self.processed]
        graph = await self.traversal.explore(new)
        return await self.grouping.groups(graph, [image.uid for image in new], images[0].uid)
