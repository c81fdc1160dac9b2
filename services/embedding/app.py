"""Composes the Embedding service from its settings."""

from __future__ import annotations

import cv2
import grpc.aio
from threadpoolctl import threadpool_limits

from imagesearch.embedding.v1 import embedding_service_pb2_grpc as pb_grpc
from imagesearch_services.common.server import Service
from imagesearch_services.embedding.cage.cage import Cage
from imagesearch_services.embedding.call_queue import CallQueue
from imagesearch_services.embedding.comparison.comparing import Comparer
from imagesearch_services.embedding.comparison.copies import CopyChecker
from imagesearch_services.embedding.drawing.drawer import Drawer
from imagesearch_services.embedding.elements.finder import ElementFinder
from imagesearch_services.embedding.elements.regional import RegionalDescriber
from imagesearch_services.embedding.elements.vocabulary import Vocabulary
from imagesearch_services.embedding.embed.embedder import Embedder
from imagesearch_services.embedding.inference.background import load_backgrounds
from imagesearch_services.embedding.inference.registry import ModelRegistry
from imagesearch_services.embedding.inference.triton import TritonClient
from imagesearch_services.embedding.memory import keep_freed_memory
from imagesearch_services.embedding.runtime import Runtime
from imagesearch_services.embedding.servicer import SERVICE, Domain, EmbeddingServicer
from imagesearch_services.embedding.settings import Settings


def build(settings: Settings) -> Service:
    """Build the service; it starts watching Triton when it is registered with a server."""
    # BLAS threads busy-wait, which takes processor time from Triton.
    threadpool_limits(1, "blas")
    # The runtime's threads already process pictures in parallel: use one OpenCV thread for each.
    cv2.setNumThreads(1)
    keep_freed_memory()
    triton = TritonClient(settings.triton_target, infer_timeout_s=settings.infer_timeout_s)
    registry = ModelRegistry(
        triton,
        watch_interval_s=settings.watch_interval_s,
        probe_interval_s=settings.probe_interval_s,
    )
    cage = Cage(workers=settings.workers, overload_retry_s=settings.overload_retry_s)
    runtime = Runtime(
        workers=settings.workers,
        pixel_budget=settings.pixel_budget,
        overload_retry_s=settings.overload_retry_s,
        decoder=cage,
    )
    backgrounds = load_backgrounds()
    domain = Domain(
        registry=registry,
        runtime=runtime,
        embedder=Embedder(runtime, registry, backgrounds),
        comparer=Comparer(runtime, registry, backgrounds),
        copies=CopyChecker(runtime),
        drawer=Drawer(runtime),
        elements=ElementFinder(runtime, Vocabulary.load(), RegionalDescriber(registry)),
        singles=CallQueue(
            "calls with pictures",
            in_progress=settings.calls_in_progress,
            queued=settings.calls_queued,
            retry_after_s=settings.overload_retry_s,
        ),
        batches=CallQueue(
            "batches",
            in_progress=settings.batch_pictures_in_progress,
            queued=settings.batch_pictures_queued,
            retry_after_s=settings.overload_retry_s,
        ),
    )
    servicer = EmbeddingServicer(domain)

    def register(server: grpc.aio.Server) -> None:
        pb_grpc.add_EmbeddingServiceServicer_to_server(servicer, server)
        cage.start()
        registry.start()
        domain.drawer.start()

    async def check() -> None:
        registry.check()
        await cage.check()

    async def close() -> None:
        await registry.close()
        runtime.close()
        cage.close()
        await triton.close()

    return Service(
        name="embedding",
        descriptor_names=[SERVICE],
        register=register,
        settings=settings.server,
        check=check,
        close=close,
    )
