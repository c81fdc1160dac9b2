"""The embedded engine, in a process of its own.

The bindings of Qdrant Edge hold Python's global lock for as long as a call runs, be it the
building of an index for a minute. Called from a thread of the server they would stop it
whole; so the engine lives here, and `edge.py` talks to it over a socket. One process owns a
data folder at a time.

A collection is a folder with numbered generations of a shard, of which the file CURRENT names
the one in use: an index is built in a copy (`edge_build.py`), which then takes its place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pickle
import shutil
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as q

from imagesearch_services.catalog import filters
from imagesearch_services.catalog.filters import Filter
from imagesearch_services.catalog.framing import HEADER
from imagesearch_services.catalog.model import FieldType, VectorData, VectorSpace
from imagesearch_services.catalog.storage import (
    FEATURES_KEY,
    THUMBNAIL_KEY,
    CollectionStats,
    Fields,
    FolderLockedError,
    Payload,
    Point,
    Record,
    Scored,
    Search,
    has_links,
)
from imagesearch_services.common.types import SparseVector

LOCK_FILE = "lock"
CURRENT_FILE = "CURRENT"

INDEX_PARAMS = {
    FieldType.STRING: q.KeywordIndexParams,
    FieldType.INTEGER: q.IntegerIndexParams,
    FieldType.FLOAT: q.FloatIndexParams,
    FieldType.BOOLEAN: q.BoolIndexParams,
}

COMPACT_DENSE = q.VectorStorageDatatype.Turbo8
"""A byte a component, as near as half precision: of 512 components, cosines err by .0003."""
COMPACT_SPARSE = q.VectorStorageDatatype.Float16

PLACEHOLDER_SPACE = VectorSpace("none@0", 1)
"""A shard needs a space; collections without one, the metadata, get this, and never fill it."""

WITH_PAYLOAD: dict[Fields, Any] = {
    Fields.NONE: False,
    Fields.ENTITY: ["entity_id", "image_id"],
    Fields.THUMBNAIL: [THUMBNAIL_KEY],
    Fields.FEATURES: [FEATURES_KEY],
    Fields.ENTRY: q.PayloadSelector.Exclude([FEATURES_KEY]),
    Fields.ALL: True,
}


MAX_OPEN = 64
"""Shards kept open; the one used longest ago is closed for the next, to open again in a
tenth of a second. Each holds files and threads, and takes a moment to close at the end."""

WARM_BYTES = 1 << 20
"""Read at once; between two reads others may run."""

WARM_SHARE = 0.5
"""Of the memory that is left, what a shard's payload may take in the page cache."""

FLUSH_POINTS = 20_000
"""Points written after which a shard is brought to disk, so that its write-ahead log, which is
replayed after a kill, stays short."""


class _Collection:
    """An open shard and what was learnt about it."""

    def __init__(self, folder: Path, generation: int, shard: q.EdgeShard) -> None:
        self.folder = folder
        self.generation = generation
        self.shard = shard
        config = json.loads((self.path / "edge_config.json").read_text(encoding="utf-8"))
        self.dense_count = len(config["vectors"].keys() - {PLACEHOLDER_SPACE.name})
        self.sparse_count = len(config["sparse_vectors"])
        # Vectors of points that were replaced or removed after the index was built: the
        # engine goes on counting them as indexed until it builds anew.
        self.stale_count = 0
        self._unflushed_count = 0
        threading.Thread(target=_warm, args=[self.path], daemon=True).start()

    def wrote(self, count: int) -> None:
        """Flush now and then; nothing that is acknowledged depends on it."""
        self._unflushed_count += count
        if self._unflushed_count >= FLUSH_POINTS:
            self.shard.flush()
            self._unflushed_count = 0

    @property
    def path(self) -> Path:
        return self.folder / str(self.generation)

    def stats(self) -> CollectionStats:
        info = self.shard.info()
        dense = info.points_count * self.dense_count
        # Sparse vectors are indexed as they come, and counted with the others.
        indexed = info.indexed_vectors_count - info.points_count * self.sparse_count
        unindexed = dense - indexed + self.stale_count
        return CollectionStats(info.points_count, min(max(unindexed, 0), dense))


class Engine:
    """The commands that `edge.py` may send; the names of the methods are the commands."""

    def __init__(self) -> None:
        self._folder = Path()
        self._ef = 0
        self._min_free_bytes = 0
        self._open: dict[str, _Collection] = {}
        self._next: dict[str, _Collection] = {}

    # Life

    def open(self, folder: str, ef: int, min_free_bytes: int, lock_wait_s: float) -> None:
        """Take the data folder; `ef` is the breadth of searches in the HNSW graph."""
        self._folder = Path(folder)
        self._ef = ef
        self._min_free_bytes = min_free_bytes
        self._folder.mkdir(parents=True, exist_ok=True)
        self._take_lock(time.monotonic() + lock_wait_s)

    def ping(self) -> None:
        """Answer."""

    def close(self) -> None:
        """Flush and close every shard."""
        for collection in (*self._open.values(), *self._next.values()):
            collection.shard.close()
        self._open.clear()
        self._next.clear()

    def keep_only(self, names: frozenset[str]) -> None:
        """Remove collections of other names, and generations that are not in use."""
        for folder in self._folder.iterdir():
            if not folder.is_dir():
                continue
            if folder.name not in names or not (folder / CURRENT_FILE).exists():
                self.drop_collection(folder.name)
                continue
            current = (folder / CURRENT_FILE).read_text(encoding="ascii")
            for generation in folder.iterdir():
                if generation.is_dir() and generation.name != current:
                    shutil.rmtree(generation)

    # Collections

    def create_collection(
        self, name: str, spaces: Sequence[VectorSpace], indexes: Mapping[str, FieldType]
    ) -> None:
        folder = self._folder / name
        if (folder / CURRENT_FILE).exists():
            return
        self._need_space()
        if folder.exists():
            shutil.rmtree(folder)
        generation = folder / "0"
        generation.mkdir(parents=True)
        dense = [space for space in spaces if not space.sparse]
        if not spaces:
            dense = [PLACEHOLDER_SPACE]
        shard = q.EdgeShard.create(
            str(generation),
            q.EdgeConfig(
                vectors={
                    space.name: q.EdgeVectorParams(
                        space.dimensions,
                        q.Distance.Cosine,
                        datatype=COMPACT_DENSE if space.compact else None,
                    )
                    for space in dense
                },
                sparse_vectors={
                    space.name: q.EdgeSparseVectorParams(
                        modifier=q.Modifier.Idf,
                        datatype=COMPACT_SPARSE if space.compact else None,
                    )
                    for space in spaces
                    if space.sparse
                },
                wal_enabled=True,
            ),
        )
        for field, field_type in indexes.items():
            _create_index(shard, field, field_type)
        shard.flush()
        _point_to(folder, 0)
        _sync_folder(self._folder)
        self._open[name] = _Collection(folder, 0, shard)
        self._close_beyond(MAX_OPEN)

    def drop_collection(self, name: str) -> None:
        for collections in (self._open, self._next):
            collection = collections.pop(name, None)
            if collection is not None:
                collection.shard.close()
        folder = self._folder / name
        if folder.exists():
            # Without its CURRENT the folder is no collection, however far the rest gets.
            (folder / CURRENT_FILE).unlink(missing_ok=True)
            shutil.rmtree(folder)

    def create_index(self, name: str, field: str, field_type: FieldType) -> None:
        _create_index(self._collection(name).shard, field, field_type)

    def stats(self, name: str) -> CollectionStats:
        return self._collection(name).stats()

    # Points

    def upsert(self, name: str, points: Sequence[Point]) -> None:
        collection = self._collection(name)
        if collection.dense_count or collection.sparse_count:
            # Metadata are small, and without writing them no library could be deleted.
            self._need_space()
        before = collection.shard.info().points_count
        collection.shard.update(
            q.UpdateOperation.upsert_points(
                [
                    q.Point(
                        uuid.UUID(bytes=point.uid),
                        {space: _to_engine(vector) for space, vector in point.vectors.items()},
                        point.payload,
                    )
                    for point in points
                ]
            )
        )
        replaced = len(points) - (collection.shard.info().points_count - before)
        collection.stale_count += replaced * collection.dense_count
        collection.wrote(len(points))

    def set_payload(self, name: str, uid: bytes, payload: Payload) -> None:
        self._need_space()
        self._collection(name).shard.update(
            q.UpdateOperation.overwrite_payload([uuid.UUID(bytes=uid)], payload)
        )

    def delete(self, name: str, uids: Sequence[bytes]) -> None:
        collection = self._collection(name)
        before = collection.shard.info().points_count
        collection.shard.update(
            q.UpdateOperation.delete_points([uuid.UUID(bytes=uid) for uid in uids])
        )
        removed = before - collection.shard.info().points_count
        collection.stale_count += removed * collection.dense_count

    def retrieve(
        self, name: str, uids: Sequence[bytes], fields: Fields, vectors: bool
    ) -> list[Record]:
        found = self._collection(name).shard.retrieve(
            [uuid.UUID(bytes=uid) for uid in uids], WITH_PAYLOAD[fields], vectors
        )
        return [_record(record) for record in found]

    def scroll(  # noqa: PLR0917  # commands come with positional arguments
        self,
        name: str,
        where: Filter | None,
        after: bytes | None,
        limit: int,
        fields: Fields,
        vectors: bool,
    ) -> list[Record]:
        offset = None
        if after is not None:
            number = int.from_bytes(after, "big") + 1
            if number >= 1 << 128:
                return []
            offset = uuid.UUID(int=number)
        found, _ = self._collection(name).shard.scroll(
            q.ScrollRequest(
                offset=offset,
                limit=limit,
                filter=None if where is None else _filter(where),
                with_payload=WITH_PAYLOAD[fields],
                with_vector=vectors,
            )
        )
        return [_record(record) for record in found]

    def count(self, name: str, where: Filter | None) -> int:
        shard = self._collection(name).shard
        if where is None:
            return shard.info().points_count
        return shard.count(q.CountRequest(exact=True, filter=_filter(where)))

    def search(self, name: str, search: Search) -> list[list[Scored]]:
        return [
            [Scored(_uid(hit.id), hit.score, hit.payload or {}) for hit in hits]
            for hits in self._hits(name, search)
        ]

    def search_merged(self, name: str, search: Search, limit: int) -> list[Scored]:
        # Here, so that what several vectors find goes over the socket once; and by hand, since
        # reading an id takes longer than all else.
        hits = chain.from_iterable(self._hits(name, search))
        best: dict[bytes, Scored] = {}
        for hit in sorted(hits, key=attrgetter("score"), reverse=True):
            if len(best) == limit:
                break
            uid = _uid(hit.id)
            if uid not in best:
                best[uid] = Scored(uid, hit.score, hit.payload or {})
        return list(best.values())

    def _hits(self, name: str, search: Search) -> list[list[q.ScoredPoint]]:
        where = None if search.filter is None else _filter(search.filter)
        params = q.SearchParams(hnsw_ef=search.ef(self._ef))
        floor = None
        if search.min_similarity is not None:
            # The engine leaves out what equals its threshold.
            floor = float(np.nextafter(np.float32(search.min_similarity), np.float32(-np.inf)))
        return self._collection(name).shard.query_batch(
            q.QueryBatchRequest(
                [
                    q.QueryRequest(
                        limit=search.limit,
                        query=q.Query.Nearest(_to_engine(vector), using=search.space),
                        filter=where,
                        with_payload=WITH_PAYLOAD[search.fields],
                        score_threshold=floor,
                        params=params,
                    )
                    for vector in search.vectors
                ]
            )
        )

    # Building an index in a copy

    def flush(self, name: str) -> tuple[str, str]:
        """Bring the shard to disk; return its folder, and one for a copy of it."""
        collection = self._collection(name)
        # For the copy, and for what is built in it.
        self._need_space(2 * _disk_bytes(collection.path))
        collection.shard.flush()
        copy = collection.folder / str(collection.generation + 1)
        if copy.exists():
            shutil.rmtree(copy)
        return str(collection.path), str(copy)

    def open_copy(self, name: str) -> None:
        """Open the finished copy beside the shard in use."""
        collection = self._collection(name)
        generation = collection.generation + 1
        shard = q.EdgeShard.load(str(collection.folder / str(generation)))
        self._next[name] = _Collection(collection.folder, generation, shard)

    def catch_up(self, name: str, uids: Sequence[bytes]) -> None:
        """Bring points of the copy to the state that they have now."""
        present, copy = self._collection(name).shard, self._next[name]
        ids: list[int | uuid.UUID | str] = [uuid.UUID(bytes=uid) for uid in uids]
        found = present.retrieve(ids, True, True)
        gone = set(ids) - {record.id for record in found}
        before = copy.shard.info().points_count
        if found:
            copy.shard.update(
                q.UpdateOperation.upsert_points(
                    [q.Point(record.id, record.vector or {}, record.payload) for record in found]
                )
            )
        replaced = len(found) - (copy.shard.info().points_count - before)
        copy.stale_count += replaced * copy.dense_count
        if gone:
            copy.shard.update(q.UpdateOperation.delete_points(list(gone)))

    def switch(self, name: str) -> None:
        """Put the copy in the place of the shard in use."""
        present, copy = self._collection(name), self._next.pop(name)
        there = copy.shard.info().payload_schema
        for field, index in present.shard.info().payload_schema.items():
            if field not in there:
                schema = index.params or index.data_type
                copy.shard.update(q.UpdateOperation.create_field_index(field, schema))
        copy.shard.flush()
        _point_to(copy.folder, copy.generation)
        self._open[name] = copy
        present.shard.close()
        shutil.rmtree(present.path)

    def drop_copy(self, name: str) -> None:
        """Forget a copy that is of no use."""
        copy = self._next.pop(name, None)
        if copy is not None:
            copy.shard.close()
        collection = self._open.get(name)
        if collection is not None:
            folder = collection.folder / str(collection.generation + 1)
            shutil.rmtree(folder, ignore_errors=True)

    def _collection(self, name: str) -> _Collection:
        collection = self._open.pop(name, None)
        if collection is None:
            folder = self._folder / name
            generation = int((folder / CURRENT_FILE).read_text(encoding="ascii"))
            shard = q.EdgeShard.load(str(folder / str(generation)))
            collection = _Collection(folder, generation, shard)
        # At the end of the dictionary, whose first is then the one used longest ago.
        self._open[name] = collection
        self._close_beyond(MAX_OPEN)
        return collection

    def _close_beyond(self, count: int) -> None:
        idle = [name for name in self._open if name not in self._next]
        for name in idle[: max(0, len(self._open) - count)]:
            self._open.pop(name).shard.close()

    def _need_space(self, more_bytes: int = 0) -> None:
        # The engine writes through memory maps: on a full disk that is a SIGBUS and its end.
        if shutil.disk_usage(self._folder).free < self._min_free_bytes + more_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _take_lock(self, deadline: float) -> None:
        # Held until the process ends, however it ends.
        self._lock = (self._folder / LOCK_FILE).open("w")
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # An owner that was just told to stop, or killed, may need a moment.
                if time.monotonic() > deadline:
                    raise FolderLockedError(str(self._folder)) from None
                time.sleep(0.05)
            else:
                return


def _warm(folder: Path) -> None:
    """Read a shard's payload into the page cache, which the engine leaves it out of.

    It reads payload page by page, at a random place of the disk each: that would be most of the
    time of a search that looks at many entries.
    """
    files = list(folder.glob("segments/*/payload_storage/page_*.dat"))
    buffer = bytearray(WARM_BYTES)
    # A shard may be closed and removed meanwhile.
    with contextlib.suppress(OSError):
        if sum(file.stat().st_size for file in files) > WARM_SHARE * _available_bytes():
            return
        for file in files:
            with file.open("rb", buffering=0) as pages:
                while pages.readinto(buffer):
                    pass


def _available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = next(line for line in lines if line.startswith("MemAvailable"))
    return int(available.split()[1]) * 1024


def _create_index(shard: q.EdgeShard, field: str, field_type: FieldType) -> None:
    params = INDEX_PARAMS[field_type](enable_hnsw=has_links(field, field_type))
    shard.update(q.UpdateOperation.create_field_index(field, params))


def _to_engine(vector: VectorData) -> Any:
    if isinstance(vector, SparseVector):
        return q.SparseVector(list(vector.indices), list(vector.values))
    return memoryview(vector).cast("f")


def _from_engine(space: str, vector: Any) -> VectorData:
    if isinstance(vector, q.SparseVector):
        return SparseVector(space, tuple(vector.indices), tuple(vector.values))
    return np.asarray(vector, "<f4").tobytes()


def _uid(point_id: Any) -> bytes:
    uid: bytes = point_id.bytes
    return uid


def _record(record: q.Record) -> Record:
    vectors: Any = record.vector or {}
    return Record(
        _uid(record.id),
        record.payload or {},
        {space: _from_engine(space, vector) for space, vector in vectors.items()},
    )


def _filter(where: Filter) -> q.Filter:
    condition = _condition(where)
    return condition if isinstance(condition, q.Filter) else q.Filter(must=[condition])


def _condition(where: Filter) -> Any:
    match where:
        case filters.AllOf(members):
            return q.Filter(must=[_condition(member) for member in members])
        case filters.AnyOf(members):
            return q.Filter(should=[_condition(member) for member in members])
        case filters.Not(member):
            return q.Filter(must_not=[_condition(member)])
        case filters.Exists(field):
            return q.Filter(must_not=[q.IsEmptyCondition(field)])
        case filters.Match(field, values):
            return q.FieldCondition(field, match=_match(values))
        case filters.Range(field, gt, gte, lt, lte):
            return q.FieldCondition(field, range=q.RangeFloat(gt=gt, gte=gte, lt=lt, lte=lte))
    raise TypeError(f"not bound: {where!r}")


def _match(values: Sequence[str] | Sequence[int] | Sequence[bool]) -> Any:
    if len(values) > 1:
        return q.MatchAny(list(values))  # type: ignore[arg-type]  # one kind, by construction
    value = values[0]
    # The bindings take Python's bool for the integer that it also is.
    return q.MatchValue(np.bool_(value) if isinstance(value, bool) else value)  # type: ignore[arg-type]


def _point_to(folder: Path, generation: int) -> None:
    """Name the generation in use, atomically and durably."""
    draft = folder / f"{CURRENT_FILE}.new"
    with draft.open("w", encoding="ascii") as file:
        file.write(str(generation))
        file.flush()
        os.fsync(file.fileno())
    draft.rename(folder / CURRENT_FILE)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_bytes(folder: Path) -> int:
    """Return what a folder takes, holes of its files left out."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _receive(connection: socket.socket) -> Any:
    """Return the next message, None where the other end is gone."""
    header = _receive_exactly(connection, HEADER.size)
    if header is None:
        return None
    body = _receive_exactly(connection, HEADER.unpack(header)[0])
    return None if body is None else pickle.loads(body)  # noqa: S301  # from our own parent


def _receive_exactly(connection: socket.socket, size: int) -> bytearray | None:
    body = bytearray(size)
    view = memoryview(body)
    while view:
        read = connection.recv_into(view)
        if read == 0:
            return None
        view = view[read:]
    return body


def _answer(engine: Engine, method: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    command: Callable[..., Any] = getattr(engine, method)
    try:
        return True, command(*arguments)
    except FolderLockedError as error:
        return False, ("locked", str(error))
    except OSError as error:
        kind = "full" if error.errno == errno.ENOSPC else "failed"
        return False, (kind, f"{type(error).__name__}: {error}")
    except BaseException as error:  # a panic of the engine is none of Exception's
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return False, ("failed", f"{type(error).__name__}: {error}")


def main() -> None:
    """Serve the parent over the socket that it left us, until it closes its end."""
    # Signals to the group are for the parent: it stops taking calls first, then us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    engine = Engine()
    try:
        while (message := _receive(connection)) is not None:
            number, method, arguments = message
            body = pickle.dumps(
                (number, *_answer(engine, method, arguments)), pickle.HIGHEST_PROTOCOL
            )
            connection.sendall(HEADER.pack(len(body)) + body)
    except (BrokenPipeError, ConnectionResetError):
        pass
    finally:
        with contextlib.suppress(Exception):
            engine.close()


if __name__ == "__main__":
    main()
