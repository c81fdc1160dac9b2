"""Random request messages, generated from their descriptors."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.message import Message

from tests.fuzz.pictures.mutators import mutated_bytes
from tests.fuzz.requests.known import Known
from tests.fuzz.requests.methods import Method
from tests.fuzz.requests.values import hostile, plausible

HOSTILITY = (0.0, 0.0, 0.02, 0.02, 0.1, 0.5)
"""Shares of hostile fields in a message. Messages with none reach deepest."""
DENSITY = (0.1, 0.3, 0.7)
"""Shares of the optional fields that a message sets."""
ESSENTIAL = {
    "parent", "name", "library_id", "image_id", "image", "image_a", "image_b", "images", "content",
    "library", "type", "entry", "entries", "requests", "items", "pairs", "first", "second",
    "name_a", "name_b", "image_id_a", "image_id_b", "image_ids", "vectors", "space", "spaces",
    "values", "query_features",
    "candidates",
    "features", "id", "update_mask", "paths", "condition", "field", "operator", "x_max", "y_max",
    "dimensions", "tags", "key", "value", "string_value",
}  # fmt: skip
"""Fields that most requests need, by name."""
MAX_DEPTH = 8
RARE_COUNTS = (0, 100, 101, 1_001, 5_000)
"""Numbers of items around the limits of repeated fields."""
MAX_MESSAGE_ITEMS = 101
UNKNOWN_FIELD = b"\xfa\xff\x0f\x05hello"


def _inner_messages(message: Message) -> list[Message]:
    """Return the messages that are set in a message."""
    found: list[Message] = []
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        found += value if field.is_repeated else [value]
    return found


class Generator:
    """Makes requests from known values and hostile ones."""

    def __init__(self, known: Known) -> None:
        self._known = known

    def request(self, method: Method, random_: random.Random) -> bytes:
        """Return the bytes of a request, which need not be a valid message."""
        kind = random_.random()
        if kind < 0.01:
            return random_.randbytes(random_.choice((0, 1, 10, 1000)))
        message = self._message(method, random_)
        content = message.SerializeToString()
        if kind < 0.04:
            return content + UNKNOWN_FIELD
        return mutated_bytes(content, random_) if kind < 0.1 else content

    def _message(self, method: Method, random_: random.Random) -> Message:
        message = method.request()
        page = self._known.page(method, random_)
        if page is not None and random_.random() < 0.5:
            message.ParseFromString(page[0])
            setattr(message, "page_token", page[1])  # noqa: B010  # only some requests have it
            return message
        answered = self._known.request(method, random_)
        if answered is not None and random_.random() < 0.4:
            message.ParseFromString(answered)
            self._change(message, random_)
        else:
            self._fill(message, random_.choice(HOSTILITY), random_, 0)
        return message

    def _change(self, message: Message, random_: random.Random) -> None:
        """Set one or two fields anew, at any depth."""
        for _ in range(random_.choice((0, 1, 1, 2))):
            target = message
            while (inner := _inner_messages(target)) and random_.random() < 0.6:
                target = random_.choice(inner)
            if not target.DESCRIPTOR.fields:
                return
            field: Any = random_.choice(list(target.DESCRIPTOR.fields))
            if field.message_type is None and not field.is_repeated:
                setattr(target, field.name, self._value(field, 0.5, random_))
            elif field.is_repeated:
                self._fill_repeated(target, field, 0.2, random_, 1)
            else:
                self._fill(getattr(target, field.name), 0.2, random_, 1)

    def _fill(self, message: Message, hostility: float, random_: random.Random, depth: int) -> None:
        density = random_.choice(DENSITY)
        for field in message.DESCRIPTOR.fields:
            if random_.random() > (0.97 if field.name in ESSENTIAL else density):
                continue
            if field.is_repeated:
                self._fill_repeated(message, field, hostility, random_, depth)
            elif field.message_type is None:
                setattr(message, field.name, self._value(field, hostility, random_))
            elif depth < MAX_DEPTH:
                inner = getattr(message, field.name)
                inner.SetInParent()
                if not self._copy_known(inner, random_):
                    self._fill(inner, hostility, random_, depth + 1)

    def _fill_repeated(
        self,
        message: Message,
        field: Any,
        hostility: float,
        random_: random.Random,
        depth: int,
    ) -> None:
        is_rare = random_.random() < hostility / 4
        count = random_.choice(RARE_COUNTS) if is_rare else random_.choice((1, 1, 1, 2, 3))
        target = getattr(message, field.name)
        if field.message_type is None:
            target.extend(self._value(field, hostility, random_) for _ in range(count))
        elif depth >= MAX_DEPTH:
            return
        elif field.message_type.GetOptions().map_entry:
            self._fill_map(target, field, hostility, random_, min(count, 70))
        else:
            for _ in range(min(count, MAX_MESSAGE_ITEMS)):
                item = target.add()
                if not self._copy_known(item, random_):
                    self._fill(item, hostility, random_, depth + 1)

    def _copy_known(self, message: Message, random_: random.Random) -> bool:
        """Copy a message that an earlier answer contained; return whether there is one."""
        known = self._known.choose(message.DESCRIPTOR.full_name, random_)
        if known is None or random_.random() < 0.3:
            return False
        message.CopyFrom(known)
        return True

    def _fill_map(
        self,
        target: Any,
        field: Any,
        hostility: float,
        random_: random.Random,
        count: int,
    ) -> None:
        key, value = field.message_type.fields
        for _ in range(count):
            name = self._value(key, hostility / 4, random_)
            if value.message_type is None:
                target[name] = self._value(value, hostility, random_)
            else:
                self._fill(target[name], hostility, random_, MAX_DEPTH - 1)

    def _value(self, field: Any, hostility: float, random_: random.Random) -> Any:
        if random_.random() < hostility:
            return hostile(field, random_)
        return plausible(field, self._known, random_)
