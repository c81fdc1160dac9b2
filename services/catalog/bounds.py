"""Filters bound to what a library holds."""

from __future__ import annotations

from imagesearch_services.catalog.filter_binding import bind
from imagesearch_services.catalog.filters import Bound, Filter
from imagesearch_services.catalog.model import Library


def bound_filter(library: Library, where: Filter | None) -> Bound:
    """Bind to the types of its tags; False where nothing can match."""
    return bind(where, library.tag_types, library.attribute_names)


def for_engine(bound: Bound) -> Filter | None:
    """Return what an engine is asked; None for everything."""
    return None if isinstance(bound, bool) else bound
