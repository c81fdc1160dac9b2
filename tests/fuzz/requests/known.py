"""Values that the suite returned and that later requests use again."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from google.protobuf.message import Message

from tests.fuzz.requests.methods import Method

KEPT = 200
"""Maximum values that are kept of each kind."""

LEARNED = {
    "name", "uid", "library_id", "image_id", "features", "values", "space", "next_page_token",
    "query_features", "entity_id", "thumbnail", "keypoint_count",
}  # fmt: skip
"""Fields whose values are kept, by name."""

LEARNED_WHOLE = {"Vector", "SparseVector"}
"""Messages that are kept as a whole, by name."""


class Known:
    """The last values of each kind."""

    def __init__(self) -> None:
        self._values: dict[str, deque[Any]] = {}
        self._pages: dict[str, deque[tuple[bytes, str]]] = {}
        self._requests: dict[str, deque[bytes]] = {}

    def choose(self, kind: str, random_: random.Random) -> Any | None:
        """Return a value of a kind; None if none is known."""
        values = self._values.get(kind)
        return random_.choice(values) if values else None

    def page(self, method: Method, random_: random.Random) -> tuple[bytes, str] | None:
        """Return a request that had a further page, and the token of that page."""
        pages = self._pages.get(method.path)
        return random_.choice(pages) if pages else None

    def add_request(self, path: str, request: bytes) -> None:
        """Keep a request that was answered, or will be."""
        self._requests.setdefault(path, deque(maxlen=KEPT)).append(request)

    def request(self, method: Method, random_: random.Random) -> bytes | None:
        """Return a request of an RPC that was answered; None if there was none."""
        requests = self._requests.get(method.path)
        return random_.choice(requests) if requests else None

    def learn(self, method: Method, request: bytes, response: Message) -> None:
        """Keep the values of a response, by kind; names also by their resource."""
        self.add_request(method.path, request)
        self._learn(response, depth=0)
        if token := getattr(response, "next_page_token", ""):
            self._pages.setdefault(method.path, deque(maxlen=KEPT)).append((request, token))

    def add(self, kind: str, value: Any) -> None:
        self._values.setdefault(kind, deque(maxlen=KEPT)).append(value)

    def _learn(self, message: Message, depth: int) -> None:
        for field, value in message.ListFields():
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                continue
            items = list(value)[:5] if field.is_repeated else [value]
            for item in items:
                if isinstance(item, Message):
                    if item.DESCRIPTOR.name in LEARNED_WHOLE:
                        self.add(item.DESCRIPTOR.full_name, item)
                    if depth < 5:
                        self._learn(item, depth + 1)
                elif field.name in LEARNED:
                    self._learn_value(message.DESCRIPTOR.name, field.name, item)

    def _learn_value(self, message: str, field: str, value: Any) -> None:
        if field == "name" and isinstance(value, str) and value.startswith("libraries/"):
            self.add("image_name" if "/images/" in value else "library_name", value)
        elif field == "values" and isinstance(value, bytes):
            self.add("vector", value)
        elif field == "features" and message != "ExtractFeaturesResult":
            return
        elif field == "uid":
            self.add("library_uid" if message == "Library" else "uid", value)
        else:
            self.add(field, value)
