"""Helpers for reading fields of requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from imagesearch_services.common.errors import (
    ServiceError,
    field_error,
)

if TYPE_CHECKING:
    pass

DEFAULT_PAGE_SIZE = 50


def optional_bool(request: Any, name: str) -> bool | None:
    return bool(getattr(request, name)) if request.HasField(name) else None


def unknown_path(path: str, settable: Iterable[str], descriptor: Any) -> ServiceError:
    known: Mapping[str, object] = descriptor.fields_by_name
    why = "can't be changed" if path.partition(".")[0] in known else "is no field"
    return field_error("update_mask", f'"{path}" {why}; there are {", ".join(settable)}')
