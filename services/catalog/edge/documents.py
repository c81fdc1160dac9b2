"""Small files with a format version and a checksum, written atomically and durably.

A document is a JSON object: `format`, `content`, and `crc32` of both. A power loss leaves the
previous document or the new one.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from imagesearch_services.catalog.disk import write_atomically
from imagesearch_services.catalog.storage import NewerFormatError

FORMAT = 1
"""Version of the data folder that this version writes. A start with a later version is refused."""


class DamagedDocumentError(Exception):
    """The file is empty, is not a document, or its checksum differs."""


def write_document(path: Path, content: dict[str, Any]) -> None:
    """Replace a document; it is on the disk when this returns."""
    document = {"format": FORMAT, "crc32": _checksum(FORMAT, content), "content": content}
    write_atomically(path, json.dumps(document, indent=1).encode())


def read_document(path: Path) -> dict[str, Any] | None:
    """Return the content of a document; None if the file does not exist.

    Raises:
        DamagedDocumentError: the content can't be trusted.
        NewerFormatError: a later version wrote the file.
    """
    try:
        document = json.loads(path.read_bytes())
        version, checksum, content = document["format"], document["crc32"], document["content"]
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError, IsADirectoryError) as error:
        raise DamagedDocumentError(f"{path} is not a document: {error}") from error
    if not isinstance(content, dict) or checksum != _checksum(version, content):
        raise DamagedDocumentError(f"{path} fails its checksum")
    if not isinstance(version, int) or version > FORMAT:
        raise NewerFormatError(
            f"{path} has format {version}, made by a later version; this version reads formats "
            f"up to {FORMAT}: install the later version again, since a downgrade is refused"
        )
    return content


def _checksum(version: Any, content: Any) -> int:
    text = json.dumps([version, content], sort_keys=True, separators=(",", ":"))
    return zlib.crc32(text.encode())
