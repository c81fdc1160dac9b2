"""Enumerations of the model and of the protos."""

from __future__ import annotations

from imagesearch.gateway.v1 import search_pb2
from imagesearch.type.v1 import category_pb2, library_type_pb2
from imagesearch_services.common.types import Category, LibraryType
from imagesearch_services.gateway.model import Relation


def test_enumerations_have_the_names_and_numbers_of_the_protos() -> None:
    assert {f"CATEGORY_{category.name}": category.value for category in Category} == {
        name: number for name, number in category_pb2.Category.items() if number
    }
    assert {f"LIBRARY_TYPE_{kind.name}": kind.value for kind in LibraryType} == {
        name: number for name, number in library_type_pb2.LibraryType.items() if number
    }
    for relation in Relation:
        assert int(search_pb2.Relation.Value(f"RELATION_{relation.name}")) == relation.value
