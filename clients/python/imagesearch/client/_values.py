"""Names and tags: the few values that have a plain Python form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from imagesearch.type.v1.tag_pb2 import TagValue

PlainTag: TypeAlias = bool | int | float | str
"""A tag's value in Python. 4 and 4.0 are tags of different types."""


def library_name(library_id: str) -> str:
    """Name a library.

    >>> library_name("shop")
    'libraries/shop'
    """
    return f"libraries/{library_id}"


def image_name(library_id: str, image_id: str) -> str:
    """Name an image.

    >>> image_name("shop", "shoe.jpg")
    'libraries/shop/images/shoe.jpg'
    """
    return f"libraries/{library_id}/images/{image_id}"


def tag_value(value: PlainTag | TagValue) -> TagValue:
    """Wrap a plain value in the message of its type.

    >>> tag_value(True).WhichOneof("kind"), tag_value(1).WhichOneof("kind")
    ('bool_value', 'int_value')
    """
    match value:
        case TagValue():
            return value
        case bool():  # before int, which it is a kind of
            return TagValue(bool_value=value)
        case int():
            return TagValue(int_value=value)
        case float():
            return TagValue(float_value=value)
        case str():
            return TagValue(string_value=value)
    raise TypeError(f"a tag is a str, int, float or bool, not {type(value).__name__}")


def plain_tags(tags: Mapping[str, TagValue]) -> dict[str, PlainTag]:
    """Unwrap the tags of an image.

    >>> plain_tags({"price": tag_value(9.5), "brand": tag_value("acme")})
    {'price': 9.5, 'brand': 'acme'}
    """
    return {
        name: getattr(value, kind)
        for name, value in tags.items()
        if (kind := value.WhichOneof("kind"))
    }
