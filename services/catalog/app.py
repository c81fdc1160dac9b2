"""Puts the Catalog together out of its parts."""

from __future__ import annotations

from imagesearch.catalog.v1 import catalog_service_pb2_grpc as pb_grpc
from imagesearch_services.catalog.blobs import BlobSettings, BlobStore, open_blobs
from imagesearch_services.catalog.entries import Entries
from imagesearch_services.catalog.installation import Installation
from imagesearch_services.catalog.libraries import Libraries
from imagesearch_services.catalog.queries import Queries
from imagesearch_services.catalog.rejections import Rejections
from imagesearch_services.catalog.requests import Requests
from imagesearch_services.catalog.servicer import CatalogDomain, CatalogServicer
from imagesearch_services.catalog.settings import Settings
from imagesearch_services.catalog.small_pictures import SmallPictures
from imagesearch_services.catalog.storage import Storage
from imagesearch_services.catalog.sweep import Sweeper
from imagesearch_services.catalog.tasks import Unbroken
from imagesearch_services.catalog.thumbnails import Thumbnails
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.logs import logger
from imagesearch_services.common.server import ServerSettings, Service

SERVICE_NAME = "imagesearch.catalog.v1.CatalogService"

NO_BLOBS = "none"


def make_storage(settings: Settings) -> Storage:
    """Choose the backend; only its own packages are loaded, which are large."""
    if settings.backend == "cluster":
        from imagesearch_services.catalog.cluster import (  # noqa: PLC0415
            ClusterSettings,
            ClusterStorage,
        )

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
    from imagesearch_services.catalog.edge import EdgeSettings, EdgeStorage  # noqa: PLC0415

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


def make_blobs(settings: Settings) -> BlobStore | None:
    """Open the store of small pictures; None where there is none."""
    url = settings.blob_store
    if not url:
        folder = settings.data_dir.resolve() / "catalog" / "thumbnails"
        url = folder.as_uri() if settings.backend == "edge" else NO_BLOBS
    if url == NO_BLOBS:
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


async def _claim(installation: Installation) -> None:
    """Refuse another installation's store; one that does not answer may come later."""
    try:
        await installation.claim()
    except ServiceError as error:
        logger().warning("whose small pictures the store keeps is not known", error=error.message)


async def make_service(
    storage: Storage,
    settings: ServerSettings,
    blobs: BlobStore | None = None,
    *,
    sweep_interval_s: float = 24 * 3600.0,
) -> Service:
    """Open the storage and build the service on it; closing the service closes the storage."""
    await storage.start()
    unbroken = Unbroken()
    requests = Requests(storage)
    libraries = Libraries(storage, requests, unbroken)
    thumbnails = Thumbnails(blobs)
    sweeper = installation = None
    if blobs is not None:
        installation = Installation(storage, blobs)
        sweeper = Sweeper(
            blobs, storage, libraries, thumbnails, installation, interval_s=sweep_interval_s
        )
        thumbnails.left_over = sweeper.left_over
        libraries.removed = sweeper.library_gone
    try:
        await libraries.start()
        if installation is not None:
            await _claim(installation)
    except BaseException:
        await storage.close()
        raise
    small_pictures = SmallPictures(storage, libraries, thumbnails)
    servicer = CatalogServicer(
        CatalogDomain(
            libraries=libraries,
            entries=Entries(storage, libraries, requests, unbroken, thumbnails),
            queries=Queries(storage, libraries, small_pictures),
            small_pictures=small_pictures,
            rejections=Rejections(storage, libraries, requests, unbroken),
        )
    )
    if sweeper is not None:
        sweeper.start()

    async def close() -> None:
        await unbroken.finish()
        if sweeper is not None:
            await sweeper.close()
        await storage.close()

    return Service(
        name="catalog",
        descriptor_names=[SERVICE_NAME],
        register=lambda server: pb_grpc.add_CatalogServiceServicer_to_server(servicer, server),
        settings=settings,
        check=storage.check,
        close=close,
    )
