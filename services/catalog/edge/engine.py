"""The embedded engine: executes the commands of `EngineProcess` and converts their errors."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from imagesearch_services.catalog.edge.data_folder import DataFolder
from imagesearch_services.catalog.edge.index_copies import IndexCopies
from imagesearch_services.catalog.edge.points import Points
from imagesearch_services.catalog.edge.protocol import Failure, FailureKind
from imagesearch_services.catalog.edge.settings import EdgeSettings
from imagesearch_services.catalog.storage import (
    CollectionDamagedError,
    FolderLockedError,
    NewerFormatError,
)

Result = TypeVar("Result")


class Engine:
    """Executes commands on the collections of a data folder, which it owns."""

    def __init__(self, settings: EdgeSettings) -> None:
        """Lock the data folder.

        Raises:
            FolderLockedError: another engine holds it.
        """
        self._folder = folder = DataFolder(settings)
        points = Points(folder, settings.hnsw_ef)
        copies = IndexCopies(folder)
        self._commands: Mapping[str, Callable[..., Any]] = {
            "ping": _ping,
            "create_collection": folder.create,
            "drop_collection": folder.drop,
            "read_identity": folder.read_identity,
            "write_identity": folder.write_identity,
            "survey": folder.survey,
            "settle": folder.settle,
            "set_aside": folder.set_aside,
            "bring_back": folder.bring_back,
            "write_record": folder.write_record,
            "create_index": folder.create_index,
            "drop_index": folder.drop_index,
            "stats": folder.stats,
            "upsert": points.upsert,
            "set_payload": points.set_payload,
            "delete": points.delete,
            "retrieve": points.retrieve,
            "scroll": points.scroll,
            "count": points.count,
            "search": points.search,
            "search_merged": points.search_merged,
            "prepare_copy": copies.prepare,
            "open_copy": copies.open,
            "catch_up": copies.catch_up,
            "switch_to_copy": copies.switch,
            "drop_copy": copies.drop,
        }

    def execute(self, command: str, arguments: tuple[Any, ...]) -> Any:
        """Execute a command and return its result or a `Failure`."""
        return attempt(self._commands[command], *arguments)

    def close(self) -> None:
        """Flush and close every shard."""
        self._folder.close()


def attempt(function: Callable[..., Result], *arguments: Any) -> Result | Failure:
    """Call a function and return its result, or a `Failure` if it raises."""
    try:
        return function(*arguments)
    except FolderLockedError as error:
        return Failure(FailureKind.FOLDER_LOCKED, str(error))
    except NewerFormatError as error:
        return Failure(FailureKind.NEWER_FORMAT, str(error))
    except CollectionDamagedError as error:
        return Failure(FailureKind.COLLECTION_DAMAGED, str(error))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  # a panic of the engine is a BaseException
        disk_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        kind = FailureKind.DISK_FULL if disk_full else FailureKind.ENGINE_ERROR
        return Failure(kind, f"{type(error).__name__}: {error}")


def _ping() -> None:
    """Do nothing: the answer itself shows that the process works."""
