"""What the Embedding service is configured by: `IMAGESEARCH_EMBEDDING_*`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from imagesearch_services.common.channels import MAX_MESSAGE_BYTES
from imagesearch_services.common.env import Env, SettingsError
from imagesearch_services.common.server import ServerSettings
from imagesearch_services.embedding.pictures import MAX_PIXELS

PREFIX = "IMAGESEARCH_EMBEDDING_"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the Embedding service."""

    server: ServerSettings
    """Where and how it listens."""
    triton_target: str
    """gRPC address of Triton, `host:port` or a gRPC name."""
    pixel_budget: int
    """Pixels of pictures in work at once; calls beyond it are refused. At least 50,000,000.

    A pixel takes 4 bytes when it is decoded and at most 20 while it is (WebP with transparency). A
    call that needs more than the budget takes all of it and is let in alone; the largest needs
    105,000,000 (a hundred small pictures checked for copies, or two large ones compared). So 20
    bytes × this many, or × 105,000,000 where that is more, bound the memory that pictures take.
    """
    overload_retry_s: float
    """When a refused caller is told to come back."""
    workers: int
    """Threads that decode and resize; 0: one for each processor."""
    infer_timeout_s: float
    """How long one call to Triton may take; less where the caller's deadline is nearer."""
    watch_interval_s: float
    """How often Triton is asked which models it serves."""
    probe_interval_s: float
    """How often each model is asked again for its known answer."""

    @classmethod
    def from_env(cls, env: Env) -> Settings:
        settings = cls(
            server=ServerSettings.from_env(
                env, port=50052, metrics_port=0, max_message_bytes=MAX_MESSAGE_BYTES
            ),
            triton_target=env.text("TRITON_TARGET", "127.0.0.1:8001"),
            pixel_budget=env.integer("PIXEL_BUDGET", 128_000_000),
            overload_retry_s=env.number("OVERLOAD_RETRY_S", 0.5),
            workers=env.integer("WORKERS", 0) or len(os.sched_getaffinity(0)),
            infer_timeout_s=env.number("INFER_TIMEOUT_S", 10.0),
            watch_interval_s=env.number("WATCH_INTERVAL_S", 2.0),
            probe_interval_s=env.number("PROBE_INTERVAL_S", 30.0),
        )
        env.refuse_unknown()
        if settings.pixel_budget < MAX_PIXELS:
            raise SettingsError(
                f"{PREFIX}PIXEL_BUDGET must be at least {MAX_PIXELS}, the largest picture"
            )
        return settings
