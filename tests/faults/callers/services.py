"""A Gateway and a Catalog, without models, and a library with large answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from imagesearch.type.v1 import library_type_pb2, model_pb2, picture_pb2, tag_pb2
from imagesearch_services.common.probe import probe
from tests.ports import free_port
from tests.waiting import eventually

HONEST, HOSTILE = "honest", "hostile"
"""Tokens of the callers."""
LIBRARY = "large"
IMAGES = 100
"""Images of the library. All have the same vector: they are one group of duplicates."""
SPACE, DIMENSIONS = "sscd@1", 512


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running Gateway."""

    target: str
    pid: int

    def rss_mib(self) -> float:
        """Return the resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def running_catalog(folder: Path, checkout: Path) -> Iterator[str]:
    """Run a Catalog with the library. Yields its address."""
    port = free_port()
    settings = {
        "IMAGESEARCH_CATALOG_PORT": str(port),
        "IMAGESEARCH_CATALOG_DATA_DIR": str(folder),
        "IMAGESEARCH_CATALOG_LOG_LEVEL": "warning",
    }
    with _running("catalog", settings, checkout):
        target = f"127.0.0.1:{port}"
        with grpc.insecure_channel(target) as channel:
            catalog = CatalogServiceStub(channel)
            eventually(lambda: _create(catalog), timeout_s=60)
            _fill(catalog)
        yield target


@contextmanager
def running_gateway(catalog_target: str, checkout: Path, **settings: str) -> Iterator[Gateway]:
    """Run a Gateway whose callers need a token. Embedding is not running."""
    port = free_port()
    environment = {
        "IMAGESEARCH_GATEWAY_PORT": str(port),
        "IMAGESEARCH_GATEWAY_METRICS_PORT": "0",
        "IMAGESEARCH_GATEWAY_TOKENS": f"{HONEST},{HOSTILE}",
        "IMAGESEARCH_GATEWAY_CATALOG_TARGET": catalog_target,
        "IMAGESEARCH_GATEWAY_EMBEDDING_TARGET": f"127.0.0.1:{free_port()}",
        "IMAGESEARCH_GATEWAY_LOG_LEVEL": "error",
        **{f"IMAGESEARCH_GATEWAY_{name}": value for name, value in settings.items()},
    }
    with _running("gateway", environment, checkout) as process:
        target = f"127.0.0.1:{port}"
        _wait(lambda: probe(target, service="liveness", timeout_s=2.0) == "SERVING")
        yield Gateway(target, process.pid)


@contextmanager
def _running(
    service: str, settings: dict[str, str], checkout: Path
) -> Iterator[subprocess.Popen[bytes]]:
    paths = os.pathsep.join([str(checkout / "clients/python"), str(checkout / ".build")])
    process = subprocess.Popen(
        [sys.executable, "-m", f"imagesearch_services.{service}"],
        env={**os.environ, **settings, "PYTHONPATH": paths},
        cwd=checkout,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(condition: object) -> None:
    def attempt() -> None:
        if not condition():  # type: ignore[operator]
            raise _NotYet

    eventually(attempt, timeout_s=60)


class _NotYet(grpc.RpcError):  # type: ignore[misc]
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE


def _create(catalog: CatalogServiceStub) -> None:
    name, _, version = SPACE.partition("@")
    catalog.CreateLibrary(
        pb.CreateLibraryRequest(
            library=pb.Library(
                library_id=LIBRARY,
                type=library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE,
                spaces=[pb.VectorSpace(name=SPACE, dimensions=DIMENSIONS)],
                models=[model_pb2.ModelVersion(role="copy", name=name, version=version)],
            )
        )
    )


def _fill(catalog: CatalogServiceStub) -> None:
    vector = np.eye(1, DIMENSIONS, dtype="<f4").tobytes()
    tags = {f"tag_{number}": tag_pb2.TagValue(string_value="x" * 1000) for number in range(64)}
    for start in range(0, IMAGES, 25):
        answer = catalog.PutEntries(
            pb.PutEntriesRequest(
                library_id=LIBRARY,
                entries=[
                    pb.Entry(
                        image_id=f"i{number}",
                        info=picture_pb2.PictureInfo(width=1, height=1, sha256="0" * 64),
                        tags=tags,
                        vectors=[model_pb2.Vector(space=SPACE, values=vector)],
                    )
                    for number in range(start, start + 25)
                ],
            )
        )
        failed = [result.error.message for result in answer.results if result.HasField("error")]
        if failed:
            raise RuntimeError(failed[0])
