"""Helpers to read fields of requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from imagesearch_services.common.errors import ServiceError, field_error

DEFAULT_PAGE_SIZE = 50
"""Items per page of a list if the request does not set page_size."""


def optional_bool(request: Any, name: str) -> bool | None:
    return bool(getattr(request, name)) if request.HasField(name) else None


def unknown_path(path: str, settable: Iterable[str], descriptor: Any) -> ServiceError:
    """Return an error about a path of an update mask that cannot be set."""
    known: Mapping[str, object] = descriptor.fields_by_name
    problem = "can't be changed" if path.partition(".")[0] in known else "is not a field"
    return field_error("update_mask", f'"{path}" {problem}; valid paths: {", ".join(settable)}')
