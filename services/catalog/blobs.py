"""A store of named blobs in a local folder or an S3-compatible bucket.

It uses obstore, typed asynchronous bindings of the Rust crate object_store, except to read and
write files of a folder: one thread per call is ten times as fast, and obstore does not sync what it
writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, S3Store

from imagesearch_services.catalog.blob_files import (
    read_files,
    remove_unfinished,
    replace_files,
    write_files,
)
from imagesearch_services.catalog.disk import create_folder
from imagesearch_services.common.env import SettingsError
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.logs import logger

if TYPE_CHECKING:
    from obstore.store import S3Config

Result = TypeVar("Result")

PARALLEL_BLOBS = 32
"""Maximum blobs of a call that are transferred at the same time."""

PAGE_BLOBS = 1000
"""Maximum blobs per page of a listing or per deletion, the limit of S3."""

RETRIES = 2
"""Maximum retries of a request to a bucket."""

FIRST_BACKOFF = timedelta(milliseconds=50)
"""Delay before the first retry."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk and of an exhausted quota."""

STORE_ERRORS = (BaseError, OSError, TimeoutError)
"""Exceptions of a failed call: those of obstore, and TimeoutError for an exceeded `timeout_s`."""


@dataclass(frozen=True, kw_only=True)
class BlobSettings:
    """Location of a blob store, and access to it."""

    url: str
    """URL of a folder, "file:///folder", or of a bucket, "s3://bucket/prefix"."""
    timeout_s: float
    """Maximum time of a call, for all of its blobs together, in seconds."""
    endpoint: str = ""
    """URL of an S3-compatible server; empty: Amazon S3."""
    region: str = ""
    """Region of the bucket; empty: AWS_REGION, else us-east-1."""
    access_key_id: str = field(default="", repr=False)
    """Id of the access key; empty: credentials from AWS_* variables or the machine's role."""
    secret_access_key: str = field(default="", repr=False)
    """Secret of the access key."""
    durable: bool = True
    """Whether files in a folder survive a power loss once they are written."""


class BlobInfo(NamedTuple):
    """A blob in a listing."""

    name: str
    modified: datetime


class BlobStore:
    """Reads, writes, lists and deletes blobs."""

    def __init__(
        self,
        store: ObjectStore,
        timeout_s: float,
        folder: Path | None = None,
        *,
        durable: bool = True,
    ) -> None:
        """Use an open store.

        Args:
            store: the store.
            timeout_s: maximum time of a call, in seconds.
            folder: root of a local store, None for a bucket.
            durable: whether written files survive a power loss.
        """
        self._durable = durable
        self._store = store
        self._timeout_s = timeout_s
        self._folder = folder

    async def put(self, blobs: Mapping[str, bytes]) -> set[str]:
        """Write blobs of new names, to which nothing refers yet; failures are logged.

        A crash may leave some of them, whole or in part. On return, the blobs survive a crash.

        Returns:
            the names of the blobs that were written.

        Raises:
            ServiceError: STORAGE_FULL; no blob was written.
        """
        if self._folder is not None:
            return await self._put_files(write_files, self._folder, blobs)

        async def put(name: str, content: bytes) -> str:
            await obstore.put_async(self._store, name, content, use_multipart=False)
            return name

        outcomes = await self._run_all([put(name, content) for name, content in blobs.items()])
        stored = {outcome for outcome in outcomes if isinstance(outcome, str)}
        failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if failures:
            _log_failure("blob_store.write_failed", failures[0], count=len(failures))
        return stored

    async def replace(self, name: str, content: bytes) -> None:
        """Write a blob that may exist, so that a crash leaves the old or the new content.

        Failures are logged.
        """
        if self._folder is not None:
            await self._put_files(replace_files, self._folder, {name: content})
        else:
            await self.put({name: content})

    async def get(self, names: Sequence[str]) -> list[bytes | None]:
        """Read blobs in the order of the names; None for those that do not exist.

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

        outcomes = await self._run_all([get(name) for name in names])
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                _log_failure("blob_store.read_failed", outcome)
                raise store_unavailable() from outcome
        return [outcome for outcome in outcomes if not isinstance(outcome, Exception)]

    async def delete(self, names: Sequence[str]) -> None:
        """Remove the blobs that exist.

        Raises:
            ServiceError: BLOB_STORE_UNAVAILABLE; some blobs may have been removed.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                for start in range(0, len(names), PAGE_BLOBS):
                    await self._delete(names[start : start + PAGE_BLOBS])
        except STORE_ERRORS as error:
            _log_failure("blob_store.delete_failed", error)
            raise store_unavailable() from error

    async def list_pages(self, prefix: str = "") -> AsyncIterator[list[BlobInfo]]:
        """List the blobs below a path such as "a/b", in no particular order.

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
                yield [BlobInfo(item["path"], item["last_modified"]) for item in page]
        except STORE_ERRORS as error:
            _log_failure("blob_store.list_failed", error)
            raise store_unavailable() from error

    async def remove_unfinished(self, min_age_s: float) -> None:
        """Remove the temporary files that a crash left in a local store, if old enough.

        Args:
            min_age_s: minimum age of a removed file, in seconds.
        """
        if self._folder is not None:
            await asyncio.to_thread(remove_unfinished, self._folder, time.time() - min_age_s)

    async def _put_files(
        self, write: Callable[..., None], folder: Path, blobs: Mapping[str, bytes]
    ) -> set[str]:
        """Write all files or none, in one thread."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.to_thread(write, folder, blobs, durable=self._durable)
        except STORE_ERRORS as error:
            _log_failure("blob_store.write_failed", error, count=len(blobs))
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise ServiceError(
                    Reason.STORAGE_FULL, "the disk of the thumbnail store is full; free space on it"
                ) from error
            return set()
        return set(blobs)

    async def _get_files(self, folder: Path, names: Sequence[str]) -> list[bytes | None]:
        """Read files in one thread, which is ten times as fast as one obstore call per file."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.to_thread(read_files, folder, names)
        except STORE_ERRORS as error:
            _log_failure("blob_store.read_failed", error)
            raise store_unavailable() from error

    async def _delete(self, names: Sequence[str]) -> None:
        try:
            await obstore.delete_async(self._store, names)
        except FileNotFoundError:
            # A local store stops at the first missing blob, so later ones may remain.
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    await obstore.delete_async(self._store, name)

    async def _run_all(self, jobs: Sequence[Awaitable[Result]]) -> list[Result | Exception]:
        """Run jobs in parallel under one deadline; return the result or exception of each."""
        slots = asyncio.Semaphore(PARALLEL_BLOBS)
        deadline = asyncio.get_running_loop().time() + self._timeout_s

        async def run(job: Awaitable[Result]) -> Result | Exception:
            async with slots:
                try:
                    async with asyncio.timeout_at(deadline):
                        return await job
                except STORE_ERRORS as error:
                    return error

        return await asyncio.gather(*(run(job) for job in jobs))


def open_blobs(settings: BlobSettings) -> BlobStore:
    """Open the store of a URL. No request is sent yet, so a bucket may be unavailable.

    Raises:
        SettingsError: the URL is invalid, or the folder cannot be created.
    """
    parts = urlsplit(settings.url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        folder = Path(unquote(parts.path))
        try:
            create_folder(folder, durable=settings.durable)
            store = LocalStore(folder, mkdir=True, automatic_cleanup=True)
        except (BaseError, OSError, ValueError) as error:
            raise SettingsError(f"cannot store thumbnails in {folder}: {error}") from error
        return BlobStore(store, settings.timeout_s, folder, durable=settings.durable)
    if parts.scheme == "s3" and parts.netloc:
        return BlobStore(_bucket(settings, parts.netloc, parts.path.strip("/")), settings.timeout_s)
    raise SettingsError(
        f"cannot store thumbnails in {settings.url!r}: "
        'expected "file:///folder" or "s3://bucket/prefix"'
    )


def store_unavailable() -> ServiceError:
    """Return the error for a failed store. The cause is logged and not returned to the caller."""
    return ServiceError(Reason.BLOB_STORE_UNAVAILABLE, "the thumbnail store does not answer")


def _bucket(settings: BlobSettings, bucket: str, prefix: str) -> S3Store:
    config: S3Config = {}
    # obstore reads missing values from AWS_* variables or the machine's role.
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


def _log_failure(event: str, error: Exception, **fields: object) -> None:
    # Error messages of obstore are pages long; the first line names the failure.
    text = str(error).partition("\n")[0] or type(error).__name__
    logger().warning(event, error=text, **fields)
