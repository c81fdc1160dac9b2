"""What of a comparison needs no working thread."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.embedding.admission import PixelBudget
from imagesearch_services.embedding.comparison.comparing import Comparer
from imagesearch_services.embedding.models import ModelRegistry
from imagesearch_services.embedding.triton import TritonClient


class Serving:
    """A registry whose models are never asked for anything."""

    def with_role(self, role: str) -> Any:
        return role


async def test_a_bad_picture_is_refused_while_every_thread_compares() -> None:
    comparer = Comparer(
        cast("TritonClient", None),
        cast("ModelRegistry", Serving()),
        workers=1,
        budget=PixelBudget(50_000_000),
        overload_retry_s=0.5,
        backgrounds={},
    )
    done = threading.Event()
    busy = asyncio.ensure_future(comparer._workers.run(done.wait))
    try:
        with pytest.raises(ServiceError) as caught:
            async with asyncio.timeout(10):
                await comparer.compare(b"no picture", b"neither", draw=False)
        assert caught.value.reason is Reason.IMAGE_UNREADABLE
    finally:
        done.set()
        await busy
        comparer.close()
