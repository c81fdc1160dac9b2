"""Worker processes that decode: what they may do, and what happens when they are killed."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.embedding.cage.cage import Cage
from imagesearch_services.embedding.cage.processes import ProcessLostError
from imagesearch_services.embedding.cage.tasks import Budget
from imagesearch_services.embedding.pictures.picture_file import PictureFile
from tests.pictures import encoded, photo

SMALL = encoded(photo(1))


@pytest_asyncio.fixture
async def cage() -> AsyncIterator[Cage]:
    cage = Cage(workers=2, overload_retry_s=0.5)
    yield cage
    cage.close()


async def decoded(cage: Cage, content: bytes) -> Image.Image:
    return (await cage.decode(await cage.open(content), 1)).image


async def refusal(cage: Cage, content: bytes) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await decoded(cage, content)
    return caught.value


def zygote_pid(cage: Cage) -> int:
    pid = cage._zygote.pid
    assert pid is not None
    return pid


def worker_pids(cage: Cage) -> list[int]:
    pid = zygote_pid(cage)
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def large_png() -> bytes:
    """Return a picture of 36 megapixels, which takes a good part of a second."""
    tile = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    return encoded(Image.fromarray(np.tile(tile, (100, 100, 1))), "PNG", compress_level=1)


async def test_pixels_are_those_of_pillow(cage: Cage) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for content in (
        SMALL,
        encoded(photo(2, (1200, 900)), "PNG"),
        encoded(photo(3).convert("RGBA"), "WEBP"),
        encoded(photo(4), "JPEG", exif=exif),
        encoded(photo(5), "TIFF"),
        encoded(photo(6), "AVIF"),
        encoded(photo(7), "GIF"),
        encoded(photo(8), "BMP"),
    ):
        expected = PictureFile(content).decode().image
        assert (await decoded(cage, content)).tobytes() == expected.tobytes()


def flat(name: str) -> bytes:
    """Return a picture of 49 megapixels in one color, which compresses to little."""
    if name == "WEBP":  # encoding would take seconds
        return bytes.fromhex(
            "524946461a000000574542505650384c0d0000002f57dbd51607101111 8888fe0700"
        )
    options = {"compression": "tiff_adobe_deflate"} if name == "TIFF" else {}
    return encoded(Image.new("L", (7000, 7000)), name, **options)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
async def test_a_picture_of_the_maximum_size_is_decoded(cage: Cage, name: str) -> None:
    assert (await decoded(cage, flat(name))).size == (7000, 7000)


async def test_a_picture_is_decoded_although_its_worker_is_killed(cage: Cage) -> None:
    file = await cage.open(large_png())
    decoding = asyncio.create_task(cage.decode(file, 1))
    idle = worker_pids(cage)
    async with asyncio.timeout(30):
        while worker_pids(cage) == idle:  # noqa: ASYNC110  # until the worker runs
            await asyncio.sleep(0.001)
    (worker,) = set(worker_pids(cage)) - set(idle)
    os.kill(worker, signal.SIGKILL)
    assert (await decoding).image.size == (6000, 6000)
    assert worker not in worker_pids(cage)


async def test_stopped_workers_are_replaced(cage: Cage) -> None:
    await decoded(cage, SMALL)
    stopped = worker_pids(cage)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    assert (await decoded(cage, SMALL)).size == (320, 240)
    assert not set(stopped) & set(worker_pids(cage))


async def test_a_killed_zygote_is_replaced(cage: Cage) -> None:
    await decoded(cage, SMALL)
    killed, workers = zygote_pid(cage), worker_pids(cage)
    os.kill(killed, signal.SIGKILL)
    assert (await decoded(cage, SMALL)).size == (320, 240)
    assert zygote_pid(cage) != killed
    assert not any(is_running(pid) for pid in workers)


async def test_the_check_fails_while_no_worker_can_be_started(cage: Cage) -> None:
    await decoded(cage, SMALL)
    os.kill(zygote_pid(cage), signal.SIGSTOP)
    for pid in worker_pids(cage):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(ProcessLostError):
        await cage.check()
    async with asyncio.timeout(60):  # a zygote that does not answer is replaced
        while True:
            try:
                await cage.check()
            except ProcessLostError:
                continue
            break


async def test_a_picture_that_takes_too_much_processor_time_is_refused() -> None:
    cage = Cage(workers=1, overload_retry_s=0.5, budget=Budget(decode_cpu_s=0.05, pixel_cpu_ns=0))
    try:
        error = await refusal(cage, large_png())
        assert error.reason is Reason.IMAGE_TOO_COSTLY
        assert error.metadata == {"limit": "0.05", "unit": "seconds"}
        assert (await decoded(cage, SMALL)).size == (320, 240)
    finally:
        cage.close()


async def test_a_picture_that_takes_too_much_memory_is_refused(cage: Cage) -> None:
    """Open a picture as a worker that lies about its size would."""
    file = await cage.open(large_png())
    file.decoding_bytes = 0
    with pytest.raises(ServiceError) as caught:
        await cage.decode(file, 1)
    assert caught.value.reason is Reason.IMAGE_TOO_COSTLY


async def test_a_cancelled_call_ends_its_worker(cage: Cage) -> None:
    file = await cage.open(large_png())
    idle = {*worker_pids(cage)}
    decoding = asyncio.create_task(cage.decode(file, 1))
    async with asyncio.timeout(30):
        while not (started := {*worker_pids(cage)} - idle):  # noqa: ASYNC110  # until it runs
            await asyncio.sleep(0.001)
        decoding.cancel()
        while started & {*worker_pids(cage)}:  # noqa: ASYNC110  # until it has ended
            await asyncio.sleep(0.001)
    assert (await decoded(cage, SMALL)).size == (320, 240)


async def test_honest_pictures_are_decoded_beside_hostile_ones(cage: Cage) -> None:
    hostile = [stuffed_png(), cmyk_scans(), endless_gif(), tiled_tiff()] * 3
    honest = [encoded(photo(seed)) for seed in range(20)]
    refusals = asyncio.gather(*(outcome(cage, content) for content in hostile))
    for content in honest:
        assert (await decoded(cage, content)).size == (320, 240)
    assert set(await refusals) <= {Reason.IMAGE_TOO_COSTLY, Reason.OVERLOADED}
    assert (await decoded(cage, SMALL)).size == (320, 240)


async def test_more_files_than_may_wait_are_refused_at_once(cage: Cage) -> None:
    outcomes = await asyncio.gather(*(outcome(cage, SMALL) for _ in range(300)))
    assert set(outcomes) == {None, Reason.OVERLOADED}


CONFINED = """
import os, socket, sys
from imagesearch_services.embedding.cage.confinement import confine
limits = confine(parent_pid=os.getppid(), max_task_bytes=1_000_000)
def refused(action):
    try:
        action()
    except OSError:
        return
    os.write(1, f"{action} was possible".encode())
    os._exit(1)
refused(lambda: open("/etc/hostname"))
refused(lambda: open("/tmp/written", "w"))
refused(socket.socket)
refused(os.fork)
refused(lambda: os.setuid(0))
refused(lambda: os.kill(os.getppid(), 0))
try:
    bytearray(300_000_000)
except MemoryError:
    limits.begin(cpu_s=0.05, memory_bytes=0)
    while True:
        pass
"""


def test_a_confined_process_can_only_compute() -> None:
    if os.geteuid() != 0:
        pytest.skip("RLIMIT_NPROC and signals depend on the user: runs as root")
    done = subprocess.run(
        [sys.executable, "-c", CONFINED], capture_output=True, timeout=60, check=False
    )
    assert done.stdout == b""
    assert done.returncode == -signal.SIGPROF


async def outcome(cage: Cage, content: bytes) -> Reason | None:
    try:
        await decoded(cage, content)
    except ServiceError as error:
        return error.reason
    return None


def stuffed_png() -> bytes:
    """Return a PNG with a million empty chunks."""
    png = encoded(photo(1), "PNG")
    kind = b"teXt"
    chunk = struct.pack(">I", 0) + kind + struct.pack(">I", zlib.crc32(kind))
    return png[:33] + chunk * 800_000 + png[33:]


def cmyk_scans() -> bytes:
    """Return a large JPEG with many scans of a few bytes."""
    file = io.BytesIO()
    Image.new("CMYK", (64, 64)).save(file, "JPEG", progressive=True)
    jpeg = bytearray(file.getvalue())
    at = jpeg.index(b"\xff\xc2") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 6000, 8000)
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return bytes(jpeg[:-2] + scan * 2000 + b"\xff\xd9")


def endless_gif() -> bytes:
    """Return a GIF with a million comments before its pixels."""
    gif = encoded(photo(1), "GIF")
    at = 13 + (3 << (gif[10] & 7) + 1)
    return gif[:at] + b"!\xfe\x01a\0" * 1_000_000 + gif[at:]


def tiled_tiff() -> bytes:
    """Return a small TIFF in one tile of gigabytes."""
    entries = [
        (256, 4, 1, 100),
        (257, 4, 1, 100),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (322, 4, 1, 40_000),
        (323, 4, 1, 60_000),
        (324, 4, 1, 200),
        (325, 4, 1, 100),
    ]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + b"\0" * 4
    return head.ljust(200, b"\0") + zlib.compress(np.zeros(10_000, np.uint8).tobytes())


def is_running(pid: int) -> bool:
    """Return whether a process exists that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
