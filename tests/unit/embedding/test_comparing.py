"""Comparisons while all threads are busy."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.embedding.comparison.comparing import Comparer
from imagesearch_services.embedding.inference.registry import ModelRegistry
from imagesearch_services.embedding.runtime import Runtime
from tests.decoding import InProcessDecoder


class FakeRegistry:
    """A registry of models that are never run."""

    def with_role(self, role: str) -> Any:
        return role


async def test_an_unreadable_picture_is_refused_while_all_threads_are_busy() -> None:
    runtime = Runtime(
        workers=1, pixel_budget=50_000_000, overload_retry_s=0.5, decoder=InProcessDecoder()
    )
    comparer = Comparer(runtime, cast("ModelRegistry", FakeRegistry()), {})
    done = threading.Event()
    call = runtime.start_call()
    busy = [asyncio.create_task(lane.run(done.wait)) for lane in (call.short, call.long)]
    try:
        with pytest.raises(ServiceError) as caught:
            async with asyncio.timeout(10):
                await comparer.compare(b"not a picture", b"not a picture", draw=False)
        assert caught.value.reason is Reason.IMAGE_UNREADABLE
    finally:
        done.set()
        await asyncio.gather(*busy)
        runtime.close()
