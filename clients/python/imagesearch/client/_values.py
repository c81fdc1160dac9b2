"""Resource names and tag values as plain Python values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from imagesearch.type.v1.tag_pb2 import TagValue

PlainTag: TypeAlias = bool | int | float | str
"""Python value of a tag. The types of 4 and 4.0 differ: integer and float."""


def library_name(library_id: str) -> str:
    """Return the resource name of a library.

    >>> library_name("shop")
    'libraries/shop'
    """
    return f"libraries/{library_id}"


def image_name(library_id: str, image_id: str) -> str:
    """Return the resource name of an image.

    >>> image_name("shop", "shoe.jpg")
    'libraries/shop/images/shoe.jpg'
    """
    return f"libraries/{library_id}/images/{image_id}"


def tag_value(value: PlainTag | TagValue) -> TagValue:
    """Return the message of a tag value.

    >>> tag_value(True).WhichOneof("kind"), tag_value(1).WhichOneof("kind")
    ('bool_value', 'int_value')
    """
    match value:
        case TagValue():
            return value
        case bool():  # before int, its base class
            return TagValue(bool_value=value)
        case int():
            return TagValue(int_value=value)
        case float():
            return TagValue(float_value=value)
        case str():
            return TagValue(string_value=value)
    raise TypeError(f"a tag value must be a str, int, float or bool, not {type(value).__name__}")


def plain_tags(tags: Mapping[str, TagValue]) -> dict[str, PlainTag]:
    """Return the tags of an image as plain values.

    >>> plain_tags({"price": tag_value(9.5), "brand": tag_value("acme")})
    {'price': 9.5, 'brand': 'acme'}
    """
    return {
        name: getattr(value, kind)
        for name, value in tags.items()
        if (kind := value.WhichOneof("kind"))
    }
