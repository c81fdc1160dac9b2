"""Model roles of each library type, and the model that scores a search."""

from __future__ import annotations

from imagesearch_services.common import roles
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import LibraryType, ModelVersion
from imagesearch_services.gateway.errors import library_type_mismatch
from imagesearch_services.gateway.model import DescribedPicture, Library, Relation
from imagesearch_services.gateway.names import library_name

ROLES_BY_LIBRARY_TYPE = {
    LibraryType.WHOLE_IMAGE: (roles.COPY, roles.SEMANTIC),
    LibraryType.ELEMENT: (roles.WORDS, roles.ELEMENT),
    LibraryType.PRODUCT: (roles.PRODUCT,),
}
"""Roles of the models that a new library is created with."""

ROLE_BY_RELATION = {
    Relation.SAME: roles.COPY,
    Relation.SIMILAR: roles.SEMANTIC,
    Relation.UNSPECIFIED: roles.PRODUCT,
}


def scoring_model(library: Library, relation: Relation) -> ModelVersion:
    """Return the model whose calibration converts the similarities of a search to scores.

    Raises:
        ServiceError: LIBRARY_TYPE_MISMATCH.
    """
    # The calibration of the dense model includes the visual words.
    is_element = library.type is LibraryType.ELEMENT
    role = roles.ELEMENT if is_element else ROLE_BY_RELATION[relation]
    model = library.model(role)
    if model is None:
        raise library_type_mismatch(
            library, f"{library_name(library.library_id)} has no {role} model"
        )
    return model


def regional_space(library: Library) -> str:
    """Return the vector space of the library's dense model; empty if it has none."""
    model = library.model(roles.ELEMENT)
    return "" if model is None else model.space


def check_vocabulary(library: Library, picture: DescribedPicture) -> None:
    """Check that a picture is described with the vocabulary that the library was created with.

    Raises:
        ServiceError: MODEL_NOT_SERVED.
    """
    model = library.model(roles.WORDS)
    if model is not None and picture.words.space != model.space:
        raise ServiceError(
            Reason.MODEL_NOT_SERVED,
            f"{library_name(library.library_id)} was created with {model.space}, but "
            f"{picture.words.space} is served",
            metadata={"model": model.name, "version": model.version},
        )
