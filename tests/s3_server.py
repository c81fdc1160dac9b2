"""A server that speaks S3, for tests: moto's, with buckets in memory and unchecked signatures."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tests.ports import free_port

START_TIMEOUT_S = 60
BUCKET = "thumbnails"


@dataclass
class S3Server:
    """A running server with a bucket."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self, **changes: str) -> dict[str, str]:
        """Return the Catalog's settings that keep small pictures here."""
        return {
            "BLOB_STORE": f"s3://{BUCKET}/of/the/suite",
            "BLOB_ENDPOINT": self.endpoint,
            "BLOB_REGION": "us-east-1",
            "BLOB_ACCESS_KEY_ID": "anybody",
            "BLOB_SECRET_ACCESS_KEY": "anything",
            **changes,
        }


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """Start a server and make the bucket."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = S3Server(port, process)
    try:
        _make_bucket(server)
        yield server
    finally:
        process.kill()
        process.wait()


def _make_bucket(server: S3Server) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            httpx.put(f"{server.endpoint}/{BUCKET}").raise_for_status()
        except httpx.TransportError:
            assert server.process.poll() is None, "the S3 server ended"
            assert time.monotonic() < deadline_s, "the S3 server does not answer"
            time.sleep(0.05)
        else:
            return
