"""Reads the settings of the Embedding service from the variables `IMAGESEARCH_EMBEDDING_*`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from imagesearch_services.common.channels import MAX_MESSAGE_BYTES
from imagesearch_services.common.env import Env, SettingsError
from imagesearch_services.common.server import ServerSettings
from imagesearch_services.embedding.pictures.limits import MAX_PIXELS

PREFIX = "IMAGESEARCH_EMBEDDING_"
BATCH_PICTURES = 16
"""Pictures of a batch that the Gateway sends in one call, by default."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the Embedding service."""

    server: ServerSettings
    """Address, ports and lifecycle of the server."""
    triton_target: str
    """gRPC address of Triton, `host:port` or a gRPC name."""
    pixel_budget: int
    """Maximum pixels of the pictures that are processed at once; calls beyond it are refused. At
    least 50,000,000.

    A pixel of the budget is 8 bytes, which covers a decoded picture and its copies. A picture whose
    decoding takes more memory counts accordingly: WebP with 19 bytes a pixel. A call that needs
    more than the budget takes the whole budget and is admitted alone; the largest picture needs
    125,000,000. So the memory for pictures is at most 8 bytes × max(budget, 125,000,000).
    """
    overload_retry_s: float
    """Seconds after which a refused caller should retry."""
    workers: int
    """Number of threads for short tasks, and as many for long tasks; 0: one for each processor."""
    calls_in_progress: int
    """Maximum calls with a single picture that are worked on at once; 0: two for each worker."""
    calls_queued: int
    """Maximum calls with a single picture that wait; further calls are refused. 0: 32 for each
    worker. Far fewer wait behind a Gateway, which limits its calls by the time that they wait."""
    batch_pictures_in_progress: int
    """Maximum pictures of batches that are worked on at once; 0: 16 for each worker, which is a
    call of the Gateway."""
    batch_pictures_queued: int
    """Maximum pictures of batches that wait; further batches are refused. 0: 64 for each worker."""
    infer_timeout_s: float
    """Maximum duration of one call to Triton; the deadline of the caller may be shorter."""
    watch_interval_s: float
    """Interval at which the list of loaded models is read from Triton."""
    probe_interval_s: float
    """Interval at which each model is probed again."""

    @classmethod
    def from_env(cls, env: Env) -> Settings:
        workers = env.integer("WORKERS", 0) or len(os.sched_getaffinity(0))
        settings = cls(
            server=ServerSettings.from_env(
                env, port=50052, metrics_port=0, max_message_bytes=MAX_MESSAGE_BYTES
            ),
            triton_target=env.text("TRITON_TARGET", "127.0.0.1:8001"),
            pixel_budget=env.integer("PIXEL_BUDGET", 128_000_000),
            overload_retry_s=env.number("OVERLOAD_RETRY_S", 0.5),
            workers=workers,
            calls_in_progress=env.integer("CALLS_IN_PROGRESS", 0) or 2 * workers,
            calls_queued=env.integer("CALLS_QUEUED", 0) or 32 * workers,
            batch_pictures_in_progress=env.integer("BATCH_PICTURES_IN_PROGRESS", 0)
            or BATCH_PICTURES * workers,
            batch_pictures_queued=env.integer("BATCH_PICTURES_QUEUED", 0) or 64 * workers,
            infer_timeout_s=env.number("INFER_TIMEOUT_S", 10.0),
            watch_interval_s=env.number("WATCH_INTERVAL_S", 1.0),
            probe_interval_s=env.number("PROBE_INTERVAL_S", 30.0),
        )
        env.refuse_unknown()
        if settings.pixel_budget < MAX_PIXELS:
            raise SettingsError(
                f"{PREFIX}PIXEL_BUDGET is {settings.pixel_budget}; must be at least {MAX_PIXELS}, "
                "the pixels of the largest picture"
            )
        return settings
