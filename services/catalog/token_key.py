"""The key that signs page tokens: a random secret of the installation, made once.

It is in the metadata collection, so all Catalogs of an installation, and the Gateways that ask
them, sign with the same key without configuration. If several Catalogs start for the first time at
once, each may store a secret; all use the oldest one.
"""

from __future__ import annotations

import hmac
import secrets
import time
import uuid
from collections.abc import Callable

from imagesearch_services.catalog.filters import Match
from imagesearch_services.catalog.integrity import is_intact, seal
from imagesearch_services.catalog.payloads import METADATA
from imagesearch_services.catalog.storage import Fields, Point, Storage

KIND = "page_token_secret"
SECRET_BYTES = 32
MAX_SECRETS = 100
"""Maximum number of secrets that are read."""
KEPT_S = 60.0
"""Time for which a key is used before it is read again, in seconds."""


class TokenKey:
    """The secret of the installation."""

    def __init__(self, storage: Storage, *, clock: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._clock = clock
        self._secret = b""
        self._read_at = 0.0

    async def get(self) -> bytes:
        """Return the key of the Catalog's own tokens."""
        if not self._secret or not 0 <= self._clock() - self._read_at < KEPT_S:
            self._secret = await self._stored() or await self._created()
            self._read_at = self._clock()
        return self._secret

    async def for_gateway(self) -> bytes:
        """Return the key of the Gateway's tokens, from which the secret can't be computed."""
        return hmac.digest(await self.get(), b"gateway page tokens", "sha256")

    async def _stored(self) -> bytes:
        found = await self._storage.scroll(
            METADATA, Match("kind", (KIND,)), None, MAX_SECRETS, Fields.ALL
        )
        intact = [record for record in found if is_intact(record.payload)]
        if not intact:
            return b""
        oldest = min(intact, key=lambda record: (record.payload["created_at"], record.uid))
        return bytes.fromhex(oldest.payload["secret"])

    async def _created(self) -> bytes:
        payload = seal(
            {
                "kind": KIND,
                "secret": secrets.token_hex(SECRET_BYTES),
                "created_at": self._clock(),
            }
        )
        await self._storage.upsert(METADATA, [Point(uuid.uuid4().bytes, {}, payload)])
        return await self._stored()
