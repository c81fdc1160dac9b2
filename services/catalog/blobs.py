"""Blobs: files by name, in a local folder or in a bucket that speaks S3.

Both through one library, obstore: the Rust crate object_store with typed, asynchronous bindings. A
blob is there whole or not at all: a folder gets it under a passing name and renames it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, S3Store

from imagesearch_services.common.env import SettingsError
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.logs import logger

if TYPE_CHECKING:
    from obstore.store import S3Config

Result = TypeVar("Result")

AT_ONCE = 32
"""Blobs of one call that are on their way together."""

PAGE_BLOBS = 1000
"""Names listed together; as many as S3 gives in an answer."""

RETRIES = 2
FIRST_BACKOFF = timedelta(milliseconds=50)

PASSING_NAME = re.compile(r".+#\d+\Z")
"""How object_store names a file that is being written; listings leave them out."""

FAILURES = (BaseError, OSError, TimeoutError)
"""What a store raises when it fails; all but the last are the library's."""


@dataclass(frozen=True, kw_only=True)
class BlobSettings:
    """Where blobs are kept."""

    url: str
    """ "file:///folder" or "s3://bucket/prefix"."""
    timeout_s: float
    """How long a call to the store may take; all blobs of one call together."""
    endpoint: str = ""
    """URL of an S3-compatible server; empty: Amazon's."""
    region: str = ""
    """Of the bucket; empty: what AWS_REGION says, else us-east-1."""
    access_key_id: str = field(default="", repr=False)
    """Empty: what AWS_* variables or the machine's role give."""
    secret_access_key: str = field(default="", repr=False)


class BlobInfo(NamedTuple):
    """What a listing tells of a blob."""

    name: str
    modified: datetime


class BlobStore:
    """Reads, writes, lists and deletes blobs."""

    def __init__(self, store: ObjectStore, timeout_s: float, folder: Path | None = None) -> None:
        """Take an opened store; `folder` is where a local one keeps its files."""
        self._store = store
        self._timeout_s = timeout_s
        self._folder = folder

    async def put(self, blobs: Mapping[str, bytes]) -> set[str]:
        """Write blobs; return the names of those that are there now, and log why others are not."""

        async def put(name: str, content: bytes) -> str:
            await obstore.put_async(self._store, name, content, use_multipart=False)
            return name

        outcomes = await self._together([put(name, content) for name, content in blobs.items()])
        stored = {outcome for outcome in outcomes if isinstance(outcome, str)}
        failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if failures:
            _tell("blobs were not written", failures[0], count=len(failures))
        return stored

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """Read blobs, in the order asked; None for those that are not there.

        Raises:
            ServiceError: BLOB_STORE_UNAVAILABLE.
        """
        if self._folder is not None:
            return await self._get_files(self._folder, names)

        async def get(name: str) -> bytes | None:
            try:
                answer = await obstore.get_async(self._store, name)
                return bytes(await answer.bytes_async())
            except FileNotFoundError:
                return None

        outcomes = await self._together([get(name) for name in names])
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                _tell("blobs were not read", outcome)
                raise unavailable() from outcome
        return [outcome for outcome in outcomes if not isinstance(outcome, Exception)]

    async def delete(self, names: Sequence[str]) -> None:
        """Remove blobs; those that are not there are no error.

        Raises:
            ServiceError: BLOB_STORE_UNAVAILABLE; some may be gone.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                for start in range(0, len(names), PAGE_BLOBS):
                    await self._delete(names[start : start + PAGE_BLOBS])
        except FAILURES as error:
            _tell("blobs were not deleted", error)
            raise unavailable() from error

    async def pages(self, prefix: str = "") -> AsyncIterator[list[BlobInfo]]:
        """List blobs whose names begin with a whole part, "a/b", in no particular order.

        Raises:
            ServiceError: BLOB_STORE_UNAVAILABLE.
        """
        try:
            listing = obstore.list(self._store, prefix or None, chunk_size=PAGE_BLOBS)
            pages = aiter(listing)
            while True:
                async with asyncio.timeout(self._timeout_s):
                    page = await anext(pages, None)
                if page is None:
                    return
                yield [BlobInfo(each["path"], each["last_modified"]) for each in page]
        except FAILURES as error:
            _tell("blobs were not listed", error)
            raise unavailable() from error

    async def remove_unfinished(self, min_age_s: float) -> None:
        """Remove what a crash left of blobs that were being written to a folder."""
        if self._folder is not None:
            await asyncio.to_thread(_remove_unfinished, self._folder, time.time() - min_age_s)

    async def _get_files(self, folder: Path, names: Sequence[str]) -> list[bytes | None]:
        """Read a folder's files in one thread: a tenth of the time that one by one takes."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.to_thread(_read_files, folder, names)
        except FAILURES as error:
            _tell("blobs were not read", error)
            raise unavailable() from error

    async def _delete(self, names: Sequence[str]) -> None:
        try:
            await obstore.delete_async(self._store, names)
        except FileNotFoundError:  # for one of them, as folders say; how far it got is open
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    await obstore.delete_async(self._store, name)

    async def _together(self, jobs: Sequence[Awaitable[Result]]) -> list[Result | Exception]:
        """Run jobs side by side under one deadline; a failed one gives its exception."""
        places = asyncio.Semaphore(AT_ONCE)
        deadline = asyncio.get_running_loop().time() + self._timeout_s

        async def run(job: Awaitable[Result]) -> Result | Exception:
            async with places:
                try:
                    async with asyncio.timeout_at(deadline):
                        return await job
                except FAILURES as error:
                    return error

        return await asyncio.gather(*(run(job) for job in jobs))


def open_blobs(settings: BlobSettings) -> BlobStore:
    """Open the store that a URL names. A bucket is not asked anything yet: it may come later.

    Raises:
        SettingsError: the URL can't be read, or the folder can't be made.
    """
    parts = urlsplit(settings.url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        folder = Path(unquote(parts.path))
        try:
            store = LocalStore(folder, mkdir=True, automatic_cleanup=True)
        except (BaseError, OSError, ValueError) as error:
            raise SettingsError(f"thumbnails can't be kept in {folder}: {error}") from error
        return BlobStore(store, settings.timeout_s, folder)
    if parts.scheme == "s3" and parts.netloc:
        return BlobStore(_bucket(settings, parts.netloc, parts.path.strip("/")), settings.timeout_s)
    raise SettingsError(
        f"thumbnails can't be kept in {settings.url!r}: "
        '"file:///folder" or "s3://bucket/prefix" is expected'
    )


def unavailable() -> ServiceError:
    """Say that the store failed, without its own words: those are in the log."""
    return ServiceError(
        Reason.BLOB_STORE_UNAVAILABLE, "the store of small pictures does not answer"
    )


def _bucket(settings: BlobSettings, bucket: str, prefix: str) -> S3Store:
    config: S3Config = {}
    # What is left out comes from AWS_* variables or the machine's role.
    if settings.endpoint:
        config["endpoint"] = settings.endpoint
    if settings.region:
        config["region"] = settings.region
    if settings.access_key_id:
        config["access_key_id"] = settings.access_key_id
        config["secret_access_key"] = settings.secret_access_key
    timeout = timedelta(seconds=settings.timeout_s)
    return S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        client_options={
            "allow_http": settings.endpoint.startswith("http://"),
            "connect_timeout": timeout,
            "timeout": timeout,
        },
        retry_config={
            "max_retries": RETRIES,
            "retry_timeout": timeout,
            "backoff": {"init_backoff": FIRST_BACKOFF},
        },
    )


def _read_files(folder: Path, names: Sequence[str]) -> list[bytes | None]:
    files: list[bytes | None] = []
    for name in names:
        try:
            files.append((folder / name).read_bytes())
        except FileNotFoundError:
            files.append(None)
    return files


def _remove_unfinished(folder: Path, before_s: float) -> None:
    # Not rglob: a folder goes with its last file, and one that goes meanwhile would end the walk.
    for parent, _, names in os.walk(folder):
        for file in (Path(parent, name) for name in names if PASSING_NAME.match(name)):
            with contextlib.suppress(OSError):
                if file.stat().st_mtime < before_s:
                    file.unlink()


def _tell(event: str, error: Exception, **facts: object) -> None:
    # The library's own text goes on for pages behind its first line.
    text = str(error).partition("\n")[0] or type(error).__name__
    logger().warning(event, error=text, **facts)
