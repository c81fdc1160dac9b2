"""Rejected pairs survive a kill, and the Gateway reads all their pages."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from pathlib import Path

import grpc.aio
import pytest

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.catalog import rejections
from imagesearch_services.gateway.clients.catalog import CatalogClient
from tests.contract.catalog.support import Catalog, make_entry, running_catalog, settings_for
from tests.ports import free_port


def names(count: int) -> list[str]:
    return [f"i{number}" for number in range(count)]


def pairs_of(ids: list[str]) -> list[pb.EntryPair]:
    return [pb.EntryPair(image_id_a=a, image_id_b=b) for a, b in itertools.pairwise(ids)]


async def test_every_acknowledged_rejection_survives_a_kill(tmp_path: Path) -> None:
    ids = names(120)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "imagesearch_services.catalog",
        env=os.environ
        | {
            "IMAGESEARCH_CATALOG_PORT": str(port),
            "IMAGESEARCH_CATALOG_DATA_DIR": str(tmp_path),
            "IMAGESEARCH_CATALOG_METRICS_PORT": "0",
            "IMAGESEARCH_CATALOG_LOG_LEVEL": "error",
        },
        start_new_session=True,
    )
    acknowledged: list[pb.EntryPair] = []
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), 60)
            catalog = Catalog(channel)
            await catalog.make_library("shop")
            await catalog.store("shop", *(make_entry(image_id) for image_id in ids))

            async def reject_all() -> None:
                for pair in pairs_of(ids):
                    request = pb.RejectPairsRequest(
                        library_id="shop", pairs=[pair], request_id=f"{pair.image_id_a}"
                    )
                    await catalog.stub.RejectPairs(request)
                    acknowledged.append(pair)

            rejecting = asyncio.create_task(reject_all())
            while len(acknowledged) < 60 and not rejecting.done():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            # Kill the Catalog and its engine together, during a call.
            os.killpg(process.pid, signal.SIGKILL)
            await asyncio.gather(rejecting, return_exceptions=True)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    assert len(acknowledged) >= 60

    async with running_catalog(settings_for(tmp_path)) as catalog:
        request = pb.FilterRejectedPairsRequest(library_id="shop", image_ids=ids)
        answer = await catalog.stub.FilterRejectedPairs(request)
        kept = {(pair.image_id_a, pair.image_id_b) for pair in answer.rejected_pairs}
        assert {(pair.image_id_a, pair.image_id_b) for pair in acknowledged} <= kept
        assert len(kept) <= len(acknowledged) + 1  # the interrupted call may have been stored
        again = pb.RejectPairsRequest(
            library_id="shop", pairs=[acknowledged[0]], request_id=acknowledged[0].image_id_a
        )
        assert (await catalog.stub.RejectPairs(again)).added_count == 1
        again.request_id = "another"
        assert (await catalog.stub.RejectPairs(again)).added_count == 0


async def test_the_gateway_reads_every_page_of_rejected_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejections, "PAGE_PAIRS", 3)
    ids = names(9)
    settings = settings_for(tmp_path)
    async with (
        running_catalog(settings) as catalog,
        grpc.aio.insecure_channel(f"127.0.0.1:{settings.server.port}") as channel,
    ):
        await catalog.make_library("shop")
        await catalog.store("shop", *(make_entry(image_id) for image_id in ids))
        gateway = CatalogClient(channel, timeout_s=30)
        await gateway.reject_pairs("shop", list(itertools.pairwise(ids)), "")
        found = await gateway.rejected_pairs("shop", ids)
        assert sorted(found) == list(itertools.pairwise(ids))
