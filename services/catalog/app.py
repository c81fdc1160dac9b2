"""Composes the Catalog from its settings."""

from __future__ import annotations

from imagesearch.catalog.v1 import catalog_service_pb2_grpc as pb_grpc
from imagesearch_services.catalog.answered_requests import AnsweredRequests
from imagesearch_services.catalog.backends import open_blob_store, open_storage
from imagesearch_services.catalog.blobs import BlobStore
from imagesearch_services.catalog.entry.entries import Entries
from imagesearch_services.catalog.entry.puts import Puts
from imagesearch_services.catalog.failpoints import failpoint
from imagesearch_services.catalog.library.libraries import Libraries
from imagesearch_services.catalog.library.records import open_metadata
from imagesearch_services.catalog.paging import PageTokens
from imagesearch_services.catalog.queries import Queries
from imagesearch_services.catalog.rejections import Rejections
from imagesearch_services.catalog.servicer import CatalogServicer, Domain
from imagesearch_services.catalog.settings import Settings
from imagesearch_services.catalog.storage import Storage
from imagesearch_services.catalog.tasks import ShieldedTasks
from imagesearch_services.catalog.thumbnails.installation import Installation
from imagesearch_services.catalog.thumbnails.reader import Thumbnails
from imagesearch_services.catalog.thumbnails.store import ThumbnailStore
from imagesearch_services.catalog.thumbnails.sweep import Sweeper
from imagesearch_services.catalog.token_key import TokenKey
from imagesearch_services.common.call_bound import CallBound
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.logs import logger
from imagesearch_services.common.server import Service

SERVICE = "imagesearch.catalog.v1.CatalogService"


async def build(
    settings: Settings, *, storage: Storage | None = None, blobs: BlobStore | None = None
) -> Service:
    """Open the storage and compose the service; closing the service closes the storage.

    Args:
        settings: determine the storage and the blob store.
        storage: replaces the storage of the settings, not yet started.
        blobs: replaces the blob store of the settings.

    Raises:
        FolderLockedError: another process uses the data folder.
        ForeignStoreError: the blob store belongs to another installation.
        NewerFormatError: a later version wrote the stored data.
        ServiceError: STORAGE_UNAVAILABLE.
    """
    storage = storage or open_storage(settings)
    blobs = blobs or open_blob_store(settings)
    await storage.start()
    failpoint("start.after_open")
    shielded = ShieldedTasks()
    requests = AnsweredRequests(storage)
    key = TokenKey(storage)
    tokens = PageTokens(key.get)
    libraries = Libraries(
        storage,
        requests,
        shielded,
        tokens=tokens,
        max_libraries=settings.max_libraries,
        max_tag_names=settings.max_tag_names,
    )
    thumbnail_store = ThumbnailStore(blobs)
    installation = Installation(storage, blobs)
    sweeper = None
    if blobs is not None:
        sweeper = Sweeper(
            blobs,
            storage,
            libraries,
            thumbnail_store,
            installation,
            interval_s=settings.blob_sweep_interval_s,
        )
        thumbnail_store.on_orphans = sweeper.schedule_retry
        libraries.on_removed = sweeper.remove_library
    try:
        await open_metadata(storage)
        await _claim(installation)
        failpoint("start.after_claim")
        await libraries.start()
        failpoint("start.after_cleanup")
    except BaseException:
        await storage.close()
        raise
    servicer = CatalogServicer(
        _domain(storage, libraries, requests, shielded, thumbnail_store, tokens=tokens, key=key)
    )
    if sweeper is not None:
        sweeper.start()

    async def close() -> None:
        await shielded.drain()
        await libraries.close()
        if sweeper is not None:
            await sweeper.close()
        await storage.close()

    return Service(
        name="catalog",
        descriptor_names=(SERVICE,),
        register=lambda server: pb_grpc.add_CatalogServiceServicer_to_server(servicer, server),
        settings=settings.server,
        check=storage.check,
        close=close,
        admission=CallBound(settings.max_calls),
    )


def _domain(
    storage: Storage,
    libraries: Libraries,
    requests: AnsweredRequests,
    shielded: ShieldedTasks,
    thumbnail_store: ThumbnailStore,
    *,
    tokens: PageTokens,
    key: TokenKey,
) -> Domain:
    thumbnails = Thumbnails(storage, libraries, thumbnail_store)
    return Domain(
        libraries=libraries,
        entries=Entries(storage, libraries, requests, shielded, thumbnail_store, tokens=tokens),
        puts=Puts(storage, libraries, shielded, thumbnail_store),
        queries=Queries(storage, libraries, thumbnails),
        thumbnails=thumbnails,
        rejections=Rejections(storage, libraries, requests, shielded, tokens),
        token_key=key,
    )


async def _claim(installation: Installation) -> None:
    """Refuse the data of a later version and the blob store of another installation.

    A store that does not answer yet is tolerated. Nothing has been changed or deleted before.
    """
    try:
        await installation.claim()
    except ServiceError as error:
        if error.reason is not Reason.BLOB_STORE_UNAVAILABLE:
            raise
        logger().warning("blob_store.owner_unknown", error=error.message)
