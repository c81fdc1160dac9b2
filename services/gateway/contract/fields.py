"""Helpers to read fields of requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from imagesearch.gateway.v1 import search_pb2
from imagesearch_services.common.errors import ServiceError, field_error
from imagesearch_services.gateway.contract import limits

DEFAULT_PAGE_SIZE = 50
"""Items per page of a list if the request does not set page_size."""


def optional_bool(request: Any, name: str) -> bool | None:
    return bool(getattr(request, name)) if request.HasField(name) else None


def read_bounds(
    request: search_pb2.SearchImagesRequest | search_pb2.FindDuplicatesRequest,
) -> tuple[float | None, float | None]:
    """Return the minimum score and the maximum false-positive rate; None where not set."""
    min_score = max_rate = None
    if request.HasField("min_score"):
        min_score = limits.check_min_score(request.min_score)
    if request.HasField("max_false_positive_rate"):
        max_rate = limits.check_max_false_positive_rate(request.max_false_positive_rate)
    return min_score, max_rate


def unknown_path(path: str, settable: Iterable[str], descriptor: Any) -> ServiceError:
    """Return an error about a path of an update mask that cannot be set."""
    known: Mapping[str, object] = descriptor.fields_by_name
    problem = "can't be changed" if path.partition(".")[0] in known else "is not a field"
    return field_error("update_mask", f'"{path}" {problem}; valid paths: {", ".join(settable)}')
