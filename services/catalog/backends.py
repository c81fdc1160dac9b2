"""Opens the storage and the blob store that the settings select."""

from __future__ import annotations

from imagesearch_services.catalog.blobs import BlobSettings, BlobStore, open_blobs
from imagesearch_services.catalog.settings import Settings
from imagesearch_services.catalog.storage import Storage

NO_BLOB_STORE = "none"
"""Value of BLOB_STORE that keeps no thumbnails."""


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
            durable=settings.durability == "power",
            flush_points=settings.flush_points,
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
            durable=settings.durability == "power",
        )
    )
