"""Puts the Catalog together out of its parts."""

from __future__ import annotations

from imagesearch.catalog.v1 import catalog_service_pb2_grpc as pb_grpc
from imagesearch_services.catalog.entries import Entries
from imagesearch_services.catalog.libraries import Libraries
from imagesearch_services.catalog.requests import Requests
from imagesearch_services.catalog.servicer import CatalogServicer
from imagesearch_services.catalog.settings import Settings
from imagesearch_services.catalog.storage import Storage
from imagesearch_services.catalog.tasks import Unbroken
from imagesearch_services.common.server import ServerSettings, Service

SERVICE_NAME = "imagesearch.catalog.v1.CatalogService"


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


async def make_service(storage: Storage, settings: ServerSettings) -> Service:
    """Open the storage and build the service on it; closing the service closes the storage."""
    await storage.start()
    unbroken = Unbroken()
    requests = Requests(storage)
    libraries = Libraries(storage, requests, unbroken)
    try:
        await libraries.start()
    except BaseException:
        await storage.close()
        raise
    servicer = CatalogServicer(libraries, Entries(storage, libraries, requests, unbroken))

    async def close() -> None:
        await unbroken.finish()
        await storage.close()

    return Service(
        name="catalog",
        descriptor_names=[SERVICE_NAME],
        register=lambda server: pb_grpc.add_CatalogServiceServicer_to_server(servicer, server),
        settings=settings,
        check=storage.check,
        close=close,
    )
