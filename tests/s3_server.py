"""An S3 server for tests: moto, with buckets in memory.

It checks the signature (version 4) of every request, and the permissions of its user.
"""

from __future__ import annotations

import json
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
    access_key_id: str = ""
    secret_access_key: str = ""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self, **changes: str) -> dict[str, str]:
        """Return settings of a Catalog that stores its thumbnails in the bucket."""
        return {
            "BLOB_STORE": f"s3://{BUCKET}/of/the/suite",
            "BLOB_ENDPOINT": self.endpoint,
            "BLOB_REGION": "us-east-1",
            "BLOB_ACCESS_KEY_ID": self.access_key_id,
            "BLOB_SECRET_ACCESS_KEY": self.secret_access_key,
            **changes,
        }


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """Start a server, create the bucket and a user with access to it, then enable the checks."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = S3Server(port, process)
    try:
        _make_bucket(server)
        _make_user(server)
        httpx.post(f"{server.endpoint}/moto-api/reset-auth", content="0").raise_for_status()
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


def _make_user(server: S3Server) -> None:
    _ask_iam(server, Action="CreateUser", UserName="catalog")
    statement = {
        "Effect": "Allow",
        "Action": ["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
        "Resource": "*",
    }
    _ask_iam(
        server,
        Action="PutUserPolicy",
        UserName="catalog",
        PolicyName="thumbnails",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )
    key = _ask_iam(server, Action="CreateAccessKey", UserName="catalog")
    server.access_key_id, server.secret_access_key = (
        key.partition(f"<{name}>")[2].partition("<")[0]
        for name in ("AccessKeyId", "SecretAccessKey")
    )


def _ask_iam(server: S3Server, **request: str) -> str:
    """Call the IAM service, which moto recognizes by the scope of the signature."""
    scope = "AWS4-HMAC-SHA256 Credential=anybody/20200101/us-east-1/iam/aws4_request"
    answer = httpx.post(server.endpoint, data=request, headers={"Authorization": scope})
    return answer.raise_for_status().text
