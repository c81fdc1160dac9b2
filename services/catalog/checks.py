"""What an entry must be like to be stored; each fault is one FIELD_INVALID or FIELD_REQUIRED."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from imagesearch_services.catalog.filters import INT64_MAX, INT64_MIN, NAME
from imagesearch_services.catalog.model import (
    Entry,
    Library,
    VectorData,
    VectorSpace,
)
from imagesearch_services.common.errors import Reason, ServiceError, field_error, missing_field
from imagesearch_services.common.types import SparseVector, TagValue

MAX_ID_BYTES = 255
MAX_REQUEST_ID_BYTES = 128
MAX_TAGS = 64
MAX_TAG_VALUE_BYTES = 1024
MAX_CUSTOM_CONTENT_BYTES = 4096
MAX_FEATURES_BYTES = 256 * 1024
MAX_THUMBNAIL_BYTES = 1024 * 1024
MAX_SPARSE_COMPONENTS = 65_536
LARGEST_HALF = 65_504.0
"""Weight that a compact sparse space can hold: the largest number of half precision."""

UNIT_LENGTH_TOLERANCE = 1e-3
"""How far a dense vector's length may be from 1; float16 on the way costs less."""

BYTES_A_COMPONENT = 4


def check_image_id(field: str, image_id: str) -> None:
    if not image_id:
        raise missing_field(field)
    if len(image_id.encode()) > MAX_ID_BYTES:
        raise field_error(field, f"must have at most {MAX_ID_BYTES} bytes")
    if "/" in image_id or _has_control(image_id):
        raise field_error(field, 'must be without control characters and without "/"')


def check_request_id(field: str, request_id: str) -> None:
    if len(request_id.encode()) > MAX_REQUEST_ID_BYTES:
        raise field_error(field, f"must have at most {MAX_REQUEST_ID_BYTES} bytes")


def check_fields(field: str, entry: Entry) -> None:
    """Check what the caller says of an entry, its vectors apart."""
    check_image_id(f"{field}.image_id", entry.image_id)
    if len(entry.entity_id.encode()) > MAX_ID_BYTES:
        raise field_error(f"{field}.entity_id", f"must have at most {MAX_ID_BYTES} bytes")
    if len(entry.custom_content.encode()) > MAX_CUSTOM_CONTENT_BYTES:
        raise field_error(
            f"{field}.custom_content", f"must have at most {MAX_CUSTOM_CONTENT_BYTES} bytes"
        )
    if len(entry.features) > MAX_FEATURES_BYTES:
        raise field_error(f"{field}.features", f"must have at most {MAX_FEATURES_BYTES} bytes")
    if len(entry.thumbnail) > MAX_THUMBNAIL_BYTES:
        raise field_error(f"{field}.thumbnail", f"must have at most {MAX_THUMBNAIL_BYTES} bytes")
    if len(entry.tags) > MAX_TAGS:
        raise field_error(f"{field}.tags", f"must be at most {MAX_TAGS}")
    for name, value in entry.tags.items():
        check_tag(f"{field}.tags.{name}", name, value)
    for name in entry.attributes():
        if not NAME.match(name):
            raise field_error(f"{field}.subject.attributes", f"{name!r} is no name")
    _check_finite(field, entry)


def check_tag(field: str, name: str, value: TagValue) -> None:
    if not NAME.match(name):
        raise field_error(
            field, "a tag's name is 1 to 63 of a-z, A-Z, 0-9 and _, not beginning with a digit"
        )
    if isinstance(value, str) and len(value.encode()) > MAX_TAG_VALUE_BYTES:
        raise field_error(field, f"must have at most {MAX_TAG_VALUE_BYTES} bytes")
    if isinstance(value, float) and not math.isfinite(value):
        raise field_error(field, "must be finite")
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        raise field_error(field, "must fit in 64 bits")


def check_entry_vectors(
    library: Library, fields: Sequence[str], entries: Sequence[Entry]
) -> list[ServiceError | None]:
    """Check the vectors of many entries at once.

    Returns:
        For each entry, what is wrong with its vectors, or None.
    """
    faults: list[ServiceError | None] = [None] * len(entries)
    for number, (field, entry) in enumerate(zip(fields, entries, strict=True)):
        faults[number] = _vectors_fault(library, f"{field}.vectors", entry)
    for space in library.spaces:
        if space.sparse:
            continue
        sound = [number for number, fault in enumerate(faults) if fault is None]
        bad = find_not_unit(
            _stack(space, [entries[number].vectors[space.name] for number in sound])
        )
        for row in bad:
            number = sound[row]
            faults[number] = field_error(
                f"{fields[number]}.vectors", f"{space.name}: must be finite and of unit length"
            )
    return faults


def check_query_vectors(space: VectorSpace, vectors: Sequence[bytes]) -> None:
    for number, vector in enumerate(vectors):
        if len(vector) != space.dimensions * BYTES_A_COMPONENT:
            raise field_error(
                f"vectors[{number}].values", f"{space.name} has {space.dimensions} components"
            )
    for row in find_not_unit(_stack(space, vectors)):
        raise field_error(f"vectors[{row}].values", "must be finite and of unit length")


def check_sparse(field: str, vector: SparseVector, *, most: float = math.inf) -> None:
    """Refuse what is no sparse vector, or has weights beyond `most`."""
    indices, values = vector.indices, vector.values
    if len(indices) != len(values) or len(indices) > MAX_SPARSE_COMPONENTS:
        raise field_error(
            field, f"must have as many values as indices, at most {MAX_SPARSE_COMPONENTS}"
        )
    if any(left >= right for left, right in pairwise(indices)):
        raise field_error(f"{field}.indices", "must ascend without repeats")
    if not all(map(math.isfinite, values)):
        raise field_error(f"{field}.values", "must be finite")
    if most < max(map(abs, values), default=0.0):
        raise field_error(f"{field}.values", f"must not be over {most:,.0f} in a compact space")


def find_not_unit(vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> list[int]:
    """Return the rows that are not finite or not of unit length."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    # Turned this way round, NaN counts as bad.
    bad = ~(np.abs(lengths - 1) <= UNIT_LENGTH_TOLERANCE)
    rows: list[int] = np.flatnonzero(bad).tolist()
    return rows


def _vectors_fault(library: Library, field: str, entry: Entry) -> ServiceError | None:
    for name, vector in entry.vectors.items():
        space = library.space(name)
        if space is None or space.sparse != isinstance(vector, SparseVector):
            return field_error(field, f"the library has no such space: {name}")
        if isinstance(vector, SparseVector):
            try:
                check_sparse(field, vector, most=LARGEST_HALF if space.compact else math.inf)
            except ServiceError as error:
                return error
        elif len(vector) != space.dimensions * BYTES_A_COMPONENT:
            return field_error(field, f"{name} has {space.dimensions} components")
    for space in library.spaces:
        if not space.sparse and space.name not in entry.vectors:
            return field_error(field, f"must have one of {space.name}")
    return None


def _stack(
    space: VectorSpace, vectors: Sequence[VectorData]
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    joined = b"".join(vector for vector in vectors if isinstance(vector, bytes))
    return np.frombuffer(joined, "<f4").reshape(-1, space.dimensions)


def _check_finite(field: str, entry: Entry) -> None:
    """Refuse numbers that the engine's JSON-like payload can't hold."""
    numbers: list[float] = []
    if entry.info is not None:
        numbers.append(entry.info.sharpness)
    boxes = [entry.region]
    if entry.subject is not None:
        boxes.append(entry.subject.box)
        numbers.append(entry.subject.score)
        numbers += [color.share for color in entry.subject.colors]
        numbers += [attribute.score for attribute in entry.subject.attributes]
    for box in boxes:
        if box is not None:
            numbers += box
    if not all(map(math.isfinite, numbers)):
        raise field_error(field, "its numbers must be finite")


def _has_control(text: str) -> bool:
    return any(ord(letter) < ord(" ") or 0x7F <= ord(letter) <= 0x9F for letter in text)  # noqa: PLR2004  # C0, DEL, C1


def image_not_found(library_id: str, image_id: str) -> ServiceError:
    """Say that no entry has this id."""
    return ServiceError(
        Reason.IMAGE_NOT_FOUND,
        f"there is no image {image_id}",
        metadata={"image": f"libraries/{library_id}/images/{image_id}"},
    )
