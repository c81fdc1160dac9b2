"""Adding images one by one and in batches; reading, changing and deleting them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace

from imagesearch_services.common.concurrency import in_order
from imagesearch_services.common.errors import ServiceError, unwrap
from imagesearch_services.common.types import LibraryType
from imagesearch_services.gateway.errors import (
    image_not_found,
    refuse_subject_detection,
    refuse_unknown_type,
    thumbnail_not_found,
)
from imagesearch_services.gateway.filters import Filter
from imagesearch_services.gateway.library import elements
from imagesearch_services.gateway.library.cache import LibraryCache
from imagesearch_services.gateway.model import (
    THUMBNAIL_SIDE_PX,
    EmbeddedPicture,
    Library,
    NewEntry,
    NewImage,
    PictureToEmbed,
    StoredImage,
)
from imagesearch_services.gateway.patience import patiently
from imagesearch_services.gateway.ports import Catalog, Changes, Embedding, ImagePage
from imagesearch_services.gateway.settings import AddSettings
from imagesearch_services.gateway.subjects import detection_warnings, is_subject_detected


class Images:
    """Operations on images."""

    def __init__(
        self,
        embedding: Embedding,
        catalog: Catalog,
        libraries: LibraryCache,
        settings: AddSettings,
        *,
        on_overload: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to add.

        Args:
            embedding: Embedding service.
            catalog: Catalog.
            libraries: cache of libraries.
            settings: settings of batches.
            on_overload: called when Embedding refuses a part of a batch, which is then repeated.
        """
        self._embedding = embedding
        self._catalog = catalog
        self._libraries = libraries
        self._settings = settings
        self._on_overload = on_overload

    async def add(self, library_id: str, image: NewImage) -> StoredImage:
        """Embed a picture and store it as an image."""

        async def add_to(library: Library) -> StoredImage:
            (result,) = await self._store(library, await self._embed(library, [image]))
            return unwrap(result)

        return await self._libraries.using(library_id, add_to)

    async def add_all(
        self, library_id: str, images: Sequence[NewImage | ServiceError]
    ) -> list[StoredImage | ServiceError]:
        """Add pictures; each succeeds or fails on its own.

        While a chunk of pictures is stored, the next chunks are embedded. Pictures are stored in
        order: the first of two pictures with the same id is stored, as if they were added one by
        one.

        Args:
            library_id: library to add to.
            images: pictures, or errors of invalid items, which are returned in their place.
        """
        library = await self._libraries.fetch(library_id)
        chunks = _chunks(images, self._settings.chunk_pictures)
        results: list[StoredImage | ServiceError] = []
        async with aclosing(
            in_order(
                lambda chunk: self._embed_or_errors(library, chunk),
                chunks,
                ahead=self._settings.chunks_in_flight,
            )
        ) as embedded:
            async for entries in embedded:
                results += await self._store_or_errors(library, entries)
        return results

    async def get(self, library_id: str, image_id: str) -> StoredImage:
        images = await self._catalog.get_images(library_id, image_ids=[image_id])
        if not images:
            raise image_not_found(library_id, image_id)
        return images[0]

    async def thumbnail(self, library_id: str, image_id: str) -> bytes:
        """Return the thumbnail of an image.

        Raises:
            ServiceError: IMAGE_NOT_FOUND, THUMBNAIL_NOT_FOUND, BLOB_STORE_UNAVAILABLE.
        """
        (file,) = await self._catalog.get_thumbnails(library_id, [image_id])
        if not file:
            await self.get(library_id, image_id)
            raise thumbnail_not_found(library_id, image_id)
        return file

    async def page(
        self, library_id: str, images: Filter | None, page_size: int, page_token: str
    ) -> ImagePage:
        return await self._catalog.list_images(library_id, images, page_size, page_token)

    async def update(
        self, library_id: str, image_id: str, changes: Changes, request_id: str
    ) -> StoredImage:
        if not changes:
            return await self.get(library_id, image_id)
        return await self._catalog.update_image(library_id, image_id, changes, request_id)

    async def delete(self, library_id: str, image_id: str, request_id: str) -> None:
        deleted_count = await self._catalog.delete_images(
            library_id, image_ids=[image_id], request_id=request_id
        )
        if not deleted_count:
            raise image_not_found(library_id, image_id)

    async def delete_ids(self, library_id: str, image_ids: Sequence[str], request_id: str) -> int:
        return await self._catalog.delete_images(
            library_id, image_ids=image_ids, request_id=request_id
        )

    async def delete_matching(self, library_id: str, images: Filter, request_id: str) -> int:
        return await self._catalog.delete_images(library_id, images=images, request_id=request_id)

    async def _embed(
        self, library: Library, images: Sequence[NewImage | ServiceError]
    ) -> list[NewEntry | ServiceError]:
        """Return an entry for each picture, with an error in the place of each invalid picture."""
        refuse_unknown_type(library)
        checked = [_checked(library, image) for image in images]
        if library.type is LibraryType.ELEMENT:
            return await elements.describe(self._embedding, library, checked)
        pictures = [_picture(library, image) for image in checked if isinstance(image, NewImage)]
        if not pictures:
            return [image for image in checked if isinstance(image, ServiceError)]
        spaces = [model.space for model in library.models]
        answer = await self._embedding.embed(
            pictures,
            spaces,
            thumbnail_max_side_px=0 if library.fields.thumbnails_disabled else THUMBNAIL_SIDE_PX,
        )
        embedded = iter(answer.pictures)
        return [
            image if isinstance(image, ServiceError) else _entry(image, next(embedded))
            for image in checked
        ]

    async def _embed_or_errors(
        self, library: Library, images: Sequence[NewImage | ServiceError]
    ) -> list[NewEntry | ServiceError]:
        try:
            return await patiently(lambda: self._embed(library, images), self._on_overload)
        except ServiceError as error:
            return [image if isinstance(image, ServiceError) else error for image in images]

    async def _store(
        self, library: Library, entries: Sequence[NewEntry | ServiceError]
    ) -> list[StoredImage | ServiceError]:
        storable = [entry for entry in entries if isinstance(entry, NewEntry)]
        if not storable:
            return [entry for entry in entries if isinstance(entry, ServiceError)]
        stored = iter(await self._catalog.put_entries(library.library_id, library.uid, storable))
        return [
            entry if isinstance(entry, ServiceError) else _warned(next(stored), entry.warnings)
            for entry in entries
        ]

    async def _store_or_errors(
        self, library: Library, entries: Sequence[NewEntry | ServiceError]
    ) -> list[StoredImage | ServiceError]:
        try:
            return await self._store(library, entries)
        except ServiceError as error:
            return [entry if isinstance(entry, ServiceError) else error for entry in entries]


def _checked(library: Library, image: NewImage | ServiceError) -> NewImage | ServiceError:
    if isinstance(image, NewImage):
        try:
            refuse_subject_detection(library, image.subject_detection)
        except ServiceError as error:
            return error
    return image


def _picture(library: Library, image: NewImage) -> PictureToEmbed:
    if library.type is not LibraryType.PRODUCT:
        return PictureToEmbed(image.content, image.region)
    return PictureToEmbed(
        image.content,
        image.region,
        subject_detection=is_subject_detected(image.subject_detection, image.region),
        category=image.fields.category,
    )


def _entry(image: NewImage, embedded: EmbeddedPicture | ServiceError) -> NewEntry | ServiceError:
    if isinstance(embedded, ServiceError):
        return embedded
    (region,) = embedded.regions
    subject = region.subject
    fields = image.fields
    warnings: Sequence[str] = ()
    if subject is not None and is_subject_detected(image.subject_detection, image.region):
        warnings = detection_warnings(embedded, image.fields.category)
        subject = subject if embedded.chosen_subject is not None else None
    if subject is not None and fields.category is None:
        fields = replace(fields, category=subject.category)
    return NewEntry(
        image_id=image.image_id,
        fields=fields,
        region=region.box,
        info=embedded.info,
        vectors=region.vectors,
        subject=subject,
        thumbnail=embedded.thumbnail,
        warnings=warnings,
        allow_overwrite=image.allow_overwrite,
        request_id=image.request_id,
    )


def _warned(
    stored: StoredImage | ServiceError, warnings: Sequence[str]
) -> StoredImage | ServiceError:
    if isinstance(stored, ServiceError) or not warnings:
        return stored
    return replace(stored, warnings=[*warnings, *stored.warnings])


def _chunks(
    images: Sequence[NewImage | ServiceError], size: int
) -> Iterator[Sequence[NewImage | ServiceError]]:
    return (images[start : start + size] for start in range(0, len(images), size))
