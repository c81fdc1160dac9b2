"""Settings of the Catalog from the environment variables IMAGESEARCH_CATALOG_*."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imagesearch_services.common.env import Env, SettingsError
from imagesearch_services.common.server import ServerSettings

PREFIX = "IMAGESEARCH_CATALOG_"

BACKENDS = ("edge", "cluster")

DURABILITIES = ("power", "process")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the Catalog; each docstring begins with the name of the variable."""

    server: ServerSettings
    """Address, limits and timeouts of the gRPC server."""
    backend: str
    """BACKEND: "edge", the engine embedded in the Catalog, or "cluster", a Qdrant server."""
    data_dir: Path
    """DATA_DIR: the embedded engine keeps its files in the subfolder `catalog/libraries`."""
    max_calls: int
    """MAX_CALLS: maximum calls in progress, most of which wait for the engine; further calls are
    refused with OVERLOADED."""
    min_free_mib: int
    """MIN_FREE_MIB: free disk space below which the embedded engine refuses to write, MiB."""
    durability: str
    """DURABILITY: what an acknowledged write survives: "power", a power loss, or "process", killed
    processes only."""
    flush_points: int
    """FLUSH_POINTS: points written to a library between two flushes of the embedded engine, which
    bound its write-ahead log."""
    url: str
    """URL: of the Qdrant server, "http://host:6333"."""
    grpc_port: int
    """GRPC_PORT: of the Qdrant server."""
    api_key: str = field(repr=False)
    """API_KEY: of the Qdrant server; never logged."""
    shard_number: int
    """SHARD_NUMBER: shards of a new collection on the server."""
    replication_factor: int
    """REPLICATION_FACTOR: replicas of each shard of a new collection on the server."""
    write_consistency: int
    """WRITE_CONSISTENCY: replicas that must acknowledge a write."""
    timeout_s: float
    """TIMEOUT_S: maximum duration of a call to the server, in seconds."""
    indexing_threshold: int
    """INDEXING_THRESHOLD: unindexed vectors that start the build of an HNSW index; 0: never."""
    indexing_threads: int
    """INDEXING_THREADS: threads that build an index, at the lowest priority."""
    hnsw_m: int
    """HNSW_M: edges per node of the graph."""
    hnsw_ef_construct: int
    """HNSW_EF_CONSTRUCT: search breadth while the graph is built."""
    hnsw_ef: int
    """HNSW_EF: search breadth of queries."""
    index_segments: int
    """INDEX_SEGMENTS: number of graphs that share the vectors of a library."""
    max_libraries: int
    """MAX_LIBRARIES: maximum number of libraries."""
    max_tag_names: int
    """MAX_TAG_NAMES: maximum number of distinct tag names in a library."""
    blob_store: str
    """BLOB_STORE: where thumbnails are stored: "file:///folder", "s3://bucket/prefix" or "none".

    Empty: the subfolder `catalog/thumbnails` of DATA_DIR with the embedded engine, and no store
    with a Qdrant server, since all Catalogs that share a server must reach the same store.
    """
    blob_endpoint: str
    """BLOB_ENDPOINT: URL of an S3-compatible server; empty: Amazon S3."""
    blob_region: str
    """BLOB_REGION: region of the bucket; empty: that of AWS_REGION."""
    blob_access_key_id: str = field(repr=False)
    """BLOB_ACCESS_KEY_ID: empty: from the AWS_* variables or the machine's role."""
    blob_secret_access_key: str = field(repr=False)
    """BLOB_SECRET_ACCESS_KEY: never logged."""
    blob_timeout_s: float
    """BLOB_TIMEOUT_S: maximum time that adding and searching wait for the store, in seconds."""
    blob_sweep_interval_s: float
    """BLOB_SWEEP_INTERVAL_S: interval between sweeps for orphaned thumbnails, in seconds."""

    @classmethod
    def from_env(cls, variables: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from variables; None: from the environment.

        Raises:
            SettingsError: a variable is unknown or its value is invalid.
        """
        env = Env(PREFIX, variables)
        settings = cls(
            server=ServerSettings.from_env(
                env, port=50053, metrics_port=0, max_message_bytes=64 * 1024 * 1024
            ),
            backend=env.text("BACKEND", "edge"),
            data_dir=env.path("DATA_DIR", Path(".imagesearch")),
            max_calls=env.integer("MAX_CALLS", 512),
            min_free_mib=env.integer("MIN_FREE_MIB", 256),
            durability=env.text("DURABILITY", "power"),
            flush_points=env.integer("FLUSH_POINTS", 20_000),
            url=env.text("URL", "http://127.0.0.1:6333"),
            grpc_port=env.integer("GRPC_PORT", 6334),
            api_key=env.text("API_KEY", ""),
            shard_number=env.integer("SHARD_NUMBER", 1),
            replication_factor=env.integer("REPLICATION_FACTOR", 1),
            write_consistency=env.integer("WRITE_CONSISTENCY", 1),
            timeout_s=env.number("TIMEOUT_S", 30.0),
            indexing_threshold=env.integer("INDEXING_THRESHOLD", 20_000),
            indexing_threads=env.integer("INDEXING_THREADS", 1),
            hnsw_m=env.integer("HNSW_M", 16),
            hnsw_ef_construct=env.integer("HNSW_EF_CONSTRUCT", 100),
            hnsw_ef=env.integer("HNSW_EF", 128),
            index_segments=env.integer("INDEX_SEGMENTS", 1),
            max_libraries=env.integer("MAX_LIBRARIES", 10_000),
            max_tag_names=env.integer("MAX_TAG_NAMES", 1000),
            blob_store=env.text("BLOB_STORE", ""),
            blob_endpoint=env.text("BLOB_ENDPOINT", ""),
            blob_region=env.text("BLOB_REGION", ""),
            blob_access_key_id=env.text("BLOB_ACCESS_KEY_ID", ""),
            blob_secret_access_key=env.text("BLOB_SECRET_ACCESS_KEY", ""),
            blob_timeout_s=env.number("BLOB_TIMEOUT_S", 2.0),
            blob_sweep_interval_s=env.number("BLOB_SWEEP_INTERVAL_S", 24 * 3600.0),
        )
        env.refuse_unknown()
        if settings.backend not in BACKENDS:
            raise SettingsError(
                f"{PREFIX}BACKEND: {settings.backend!r} is not a backend; "
                f"use {' or '.join(BACKENDS)}"
            )
        if settings.max_calls <= 0:
            raise SettingsError(f"{PREFIX}MAX_CALLS: must be above 0, not {settings.max_calls}")
        if settings.durability not in DURABILITIES:
            raise SettingsError(
                f"{PREFIX}DURABILITY: {settings.durability!r} is unknown; "
                f"use {' or '.join(DURABILITIES)}"
            )
        for name, value in (
            ("MAX_LIBRARIES", settings.max_libraries),
            ("MAX_TAG_NAMES", settings.max_tag_names),
            ("FLUSH_POINTS", settings.flush_points),
            ("BLOB_TIMEOUT_S", settings.blob_timeout_s),
            ("BLOB_SWEEP_INTERVAL_S", settings.blob_sweep_interval_s),
        ):
            if value <= 0:
                raise SettingsError(f"{PREFIX}{name}: must be above 0, not {value:g}")
        return settings
