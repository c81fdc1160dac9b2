"""Conversion of plain Python values to messages, and the doctests of the client package."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

import imagesearch.cli.files
import imagesearch.cli.output
import imagesearch.cli.values
import imagesearch.client._values
from imagesearch.client import PlainTag, plain_tags, tag_value


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, "bool_value"),
        (False, "bool_value"),
        (0, "int_value"),
        (0.0, "float_value"),
        ("", "string_value"),
    ],
)
def test_a_tag_keeps_its_type(value: PlainTag, kind: str) -> None:
    tag = tag_value(value)
    assert tag.WhichOneof("kind") == kind
    assert plain_tags({"tag": tag}) == {"tag": value}


def test_a_tag_of_another_type_is_refused() -> None:
    value: Any = None
    with pytest.raises(TypeError, match="NoneType"):
        tag_value(value)


@pytest.mark.parametrize(
    "module",
    [
        imagesearch.cli.files,
        imagesearch.cli.output,
        imagesearch.cli.values,
        imagesearch.client._values,
    ],
)
def test_examples_without_a_suite_run_as_documented(module: Any) -> None:
    results = doctest.testmod(module)
    assert results.attempted
    assert not results.failed
