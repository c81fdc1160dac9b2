"""Checks of vectors against the spaces of a library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from imagesearch_services.catalog.model import Entry, Library, VectorData, VectorSpace
from imagesearch_services.common.errors import ServiceError, field_error
from imagesearch_services.common.types import SparseVector

MAX_SPARSE_COMPONENTS = 65_536
"""Maximum components of a sparse vector."""
MAX_COMPACT_WEIGHT = 65_504.0
"""Largest weight of a compact sparse space: the largest number of half precision."""

UNIT_LENGTH_TOLERANCE = 1e-3
"""Largest difference of a dense vector's length from 1; rounding to float16 causes less."""

BYTES_PER_COMPONENT = 4

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]


def check_entry_vectors(
    library: Library, fields: Sequence[str], entries: Sequence[Entry]
) -> list[ServiceError | None]:
    """Check the vectors of many entries at once.

    Args:
        library: determines the spaces.
        fields: path of each entry in the request.
        entries: the entries, in the same order.

    Returns:
        For each entry the first error of its vectors, or None.
    """
    errors: list[ServiceError | None] = [
        _vectors_error(library, f"{field}.vectors", entry)
        for field, entry in zip(fields, entries, strict=True)
    ]
    for space in library.spaces:
        if space.sparse:
            continue
        valid = [number for number, error in enumerate(errors) if error is None]
        vectors = _stack(space, [entries[number].vectors[space.name] for number in valid])
        for row in find_not_unit(vectors):
            number = valid[row]
            errors[number] = field_error(
                f"{fields[number]}.vectors", f"{space.name}: must be finite and of unit length"
            )
    return errors


def check_query_vectors(space: VectorSpace, vectors: Sequence[bytes]) -> None:
    """Check dense query vectors.

    Raises:
        ServiceError: FIELD_INVALID.
    """
    for number, vector in enumerate(vectors):
        if len(vector) != space.dimensions * BYTES_PER_COMPONENT:
            raise _wrong_length(f"vectors[{number}].values", space, vector)
    for row in find_not_unit(_stack(space, vectors)):
        raise field_error(f"vectors[{row}].values", "must be finite and of unit length")


def check_sparse(field: str, vector: SparseVector, *, max_weight: float = math.inf) -> None:
    """Check a sparse vector; `max_weight` bounds the magnitude of its weights.

    Raises:
        ServiceError: FIELD_INVALID.
    """
    indices, values = vector.indices, vector.values
    if len(indices) != len(values):
        raise field_error(
            field, f"must have as many values ({len(values)}) as indices ({len(indices)})"
        )
    if len(indices) > MAX_SPARSE_COMPONENTS:
        raise field_error(
            field, f"must have at most {MAX_SPARSE_COMPONENTS} components, not {len(indices)}"
        )
    if any(left >= right for left, right in pairwise(indices)):
        raise field_error(f"{field}.indices", "must ascend without repeats")
    if not all(map(math.isfinite, values)):
        raise field_error(f"{field}.values", "must be finite")
    if max(map(abs, values), default=0.0) > max_weight:
        raise field_error(
            f"{field}.values", f"must be at most {max_weight:,.0f} in a compact space"
        )


def find_not_unit(vectors: Matrix) -> list[int]:
    """Return the rows that are not finite or not of unit length."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    # The comparison is negated to include NaN, for which every comparison is false.
    bad = ~(np.abs(lengths - 1) <= UNIT_LENGTH_TOLERANCE)
    rows: list[int] = np.flatnonzero(bad).tolist()
    return rows


def _vectors_error(library: Library, field: str, entry: Entry) -> ServiceError | None:
    for name, vector in entry.vectors.items():
        space = library.space(name)
        if space is None or space.sparse != isinstance(vector, SparseVector):
            return field_error(field, f"the library has no such space: {name}")
        if isinstance(vector, SparseVector):
            try:
                check_sparse(
                    field, vector, max_weight=MAX_COMPACT_WEIGHT if space.compact else math.inf
                )
            except ServiceError as error:
                return error
        elif len(vector) != space.dimensions * BYTES_PER_COMPONENT:
            return _wrong_length(field, space, vector)
    for space in library.spaces:
        if not space.sparse and space.name not in entry.vectors:
            return field_error(field, f"must have a vector of {space.name}")
    return None


def _wrong_length(field: str, space: VectorSpace, vector: bytes) -> ServiceError:
    return field_error(
        field,
        f"{space.name} has {space.dimensions} float32 components, "
        f"{space.dimensions * BYTES_PER_COMPONENT} bytes, not {len(vector)} bytes",
    )


def _stack(space: VectorSpace, vectors: Sequence[VectorData]) -> Matrix:
    joined = b"".join(vector for vector in vectors if isinstance(vector, bytes))
    return np.frombuffer(joined, "<f4").reshape(-1, space.dimensions)
