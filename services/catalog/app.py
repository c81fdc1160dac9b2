"""Composes the Catalog from its settings."""

from __future__ import annotations

from imagesearch.catalog.v1 import catalog_service_pb2_grpc as pb_grpc
from imagesearch_services.catalog.answered_requests import AnsweredRequests
from imagesearch_services.catalog.blobs import BlobSettings, BlobStore, open_blobs
from imagesearch_services.catalog.entry.entries import Entries
from imagesearch_services.catalog.entry.puts import Puts
from imagesearch_services.catalog.library.libraries import Libraries
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
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.logs import logger
from imagesearch_services.common.server import Service

SERVICE = "imagesearch.catalog.v1.CatalogService"

NO_BLOB_STORE = "none"
"""Value of BLOB_STORE that keeps no thumbnails."""


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
        ServiceError: STORAGE_UNAVAILABLE.
    """
    storage = storage or open_storage(settings)
    blobs = blobs or open_blob_store(settings)
    await storage.start()
    shielded = ShieldedTasks()
    requests = AnsweredRequests(storage)
    libraries = Libraries(storage, requests, shielded)
    thumbnail_store = ThumbnailStore(blobs)
    sweeper = installation = None
    if blobs is not None:
        installation = Installation(storage, blobs)
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
        await libraries.start()
        if installation is not None:
            await _claim(installation)
    except BaseException:
        await storage.close()
        raise
    thumbnails = Thumbnails(storage, libraries, thumbnail_store)
    servicer = CatalogServicer(
        Domain(
            libraries=libraries,
            entries=Entries(storage, libraries, requests, shielded, thumbnail_store),
            puts=Puts(storage, libraries, shielded, thumbnail_store),
            queries=Queries(storage, libraries, thumbnails),
            thumbnails=thumbnails,
            rejections=Rejections(storage, libraries, requests, shielded),
        )
    )

    if sweeper is not None:
        sweeper.start()

    async def close() -> None:
        await shielded.drain()
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
    )


async def _claim(installation: Installation) -> None:
    """Refuse the store of another installation; tolerate a store that does not answer yet."""
    try:
        await installation.claim()
    except ServiceError as error:
        logger().warning("blob_store.owner_unknown", error=error.message)


def open_storage(settings: Settings) -> Storage:
    """Return the storage of the backend, not yet started. Only that backend is imported."""
    if settings.backend == "cluster":
        from imagesearch_services.catalog.cluster.settings import ClusterSettings  # noqa: PLC0415
        from imagesearch_services.catalog.cluster.storage import ClusterStorage  # noqa: PLC0415

        return ClusterStorage(
            ClusterSettings(
                url=settings.url,
                grpc_port=settings.grpc_port,
                api_key=settings.api_key,
                shard_number=settings.shard_number,
                replication_factor=settings.replication_factor,
                write_consistency=settings.write_consistency,
                timeout_s=settings.timeout_s,
                indexing_threshold=settings.indexing_threshold,
                hnsw_m=settings.hnsw_m,
                hnsw_ef_construct=settings.hnsw_ef_construct,
                hnsw_ef=settings.hnsw_ef,
            )
        )
    from imagesearch_services.catalog.edge.settings import EdgeSettings  # noqa: PLC0415
    from imagesearch_services.catalog.edge.storage import EdgeStorage  # noqa: PLC0415

    return EdgeStorage(
        EdgeSettings(
            folder=settings.data_dir / "catalog" / "libraries",
            min_free_bytes=settings.min_free_mib << 20,
            indexing_threshold=settings.indexing_threshold,
            indexing_threads=settings.indexing_threads,
            hnsw_m=settings.hnsw_m,
            hnsw_ef_construct=settings.hnsw_ef_construct,
            hnsw_ef=settings.hnsw_ef,
            segments=settings.index_segments,
        )
    )


def open_blob_store(settings: Settings) -> BlobStore | None:
    """Return the store of thumbnails; None if none is configured."""
    url = settings.blob_store
    if not url:
        folder = settings.data_dir.resolve() / "catalog" / "thumbnails"
        url = folder.as_uri() if settings.backend == "edge" else NO_BLOB_STORE
    if url == NO_BLOB_STORE:
        return None
    return open_blobs(
        BlobSettings(
            url=url,
            timeout_s=settings.blob_timeout_s,
            endpoint=settings.blob_endpoint,
            region=settings.blob_region,
            access_key_id=settings.blob_access_key_id,
            secret_access_key=settings.blob_secret_access_key,
        )
    )
