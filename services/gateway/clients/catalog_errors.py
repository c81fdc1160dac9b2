"""Translation of the Catalog's errors for callers of the Gateway."""

from __future__ import annotations

from imagesearch_services.common.errors import ServiceError
from imagesearch_services.gateway import names
from imagesearch_services.gateway.filters import Filter, comparisons, filter_error

_VALUE_KINDS: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "float",
    type(None): "nothing",
}
"""Names of value types in the Catalog's error descriptions."""


def with_full_names(error: ServiceError, library_id: str) -> ServiceError:
    """Replace the Catalog's ids by resource names, which callers of the Gateway use."""
    metadata = dict(error.metadata)
    if library := metadata.get("library"):
        metadata["library"] = names.library_name(library.removeprefix(names.LIBRARIES))
    image = metadata.get("image")
    if image and library_id and not image.startswith(names.LIBRARIES):
        metadata["image"] = names.image_name(library_id, image)
    error.metadata = metadata
    return error


def with_filter_position(error: ServiceError, sent_filter: Filter | None) -> ServiceError:
    """Add the position in the filter string to an error that the Catalog found in a filter.

    Only the Catalog knows the types of a library's tags. Its description starts with the field and
    ends with the type of the value.
    """
    violation = next((violation for violation in error.fields if violation.field == "filter"), None)
    if sent_filter is None or violation is None:
        return error
    field, _, description = violation.description.partition(": ")
    suspects = [node for node in comparisons(sent_filter) if node.field == field]
    if not suspects:
        return error
    culprit = next(
        (node for node in suspects if description.endswith(_VALUE_KINDS[type(node.value)])),
        suspects[0],
    )
    return filter_error(culprit.position, violation.description)
