"""Helpers that the page tokens of all RPCs share."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable

from imagesearch_services.common.errors import FieldViolation, Reason, ServiceError

MAC_BYTES = 16
KEY_KEPT_S = 60.0
"""Time for which a key of the installation is used before it is read again, in seconds."""


def fingerprint(value: object) -> str:
    """Return a short digest of a request field, the same in every process."""
    raw = value if isinstance(value, bytes) else repr(value).encode()
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


def invalid_token(reason: str) -> ServiceError:
    """Return the error for a page token that is malformed or belongs to another request."""
    return ServiceError(
        Reason.PAGE_TOKEN_INVALID,
        f"page_token: {reason}",
        fields=[FieldViolation("page_token", reason)],
    )


class TokenKey:
    """The key that signs page tokens: configured, or that of the installation."""

    def __init__(
        self,
        configured: bytes = b"",
        fetch: Callable[[], Awaitable[bytes]] | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Sign with `configured`, or with the key that `fetch` reads if one is given."""
        self._value = configured
        self._fetch = fetch
        self._now_s = now_s
        self._fetched_s: float | None = None

    async def load(self) -> None:
        """Read the key of the installation, if it was not read lately.

        Raises:
            ServiceError: the first read failed.
        """
        if self._fetch is None:
            return
        now_s = self._now_s()
        if self._fetched_s is not None and now_s - self._fetched_s < KEY_KEPT_S:
            return
        try:
            self._value = await self._fetch()
        except ServiceError:
            if self._fetched_s is None:
                raise
            # The key known so far stays valid: it changes only if the Catalog's data is replaced.
            return
        self._fetched_s = now_s

    def sign(self, version: bytes, body: bytes) -> str:
        """Return the token `base64url( version · mac · body )`."""
        token = version + self._mac(version + body) + body
        return base64.urlsafe_b64encode(token).decode().rstrip("=")

    def verify(self, version: bytes, text: str) -> bytes:
        """Return the body of a token.

        Raises:
            ServiceError: PAGE_TOKEN_INVALID: `sign` did not return it, for this version and key.
        """
        try:
            token = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise invalid_token("it was not issued by this service") from None
        mac, body = token[1 : 1 + MAC_BYTES], token[1 + MAC_BYTES :]
        if token[:1] != version or not hmac.compare_digest(mac, self._mac(version + body)):
            raise invalid_token("it was not issued by this service, or was altered")
        return body

    def _mac(self, message: bytes) -> bytes:
        return hmac.digest(self._value, message, "sha256")[:MAC_BYTES]


def text(value: object) -> str:
    """Return a string of a token; raise TypeError otherwise."""
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def integer(value: object, low: int, high: int) -> int:
    """Return an integer of a token from `low` to `high`; raise an exception otherwise."""
    if type(value) is not int:
        raise TypeError("not an integer")
    if not low <= value <= high:
        raise ValueError("out of range")
    return value


def number(value: object, low: float, high: float) -> float:
    """Return a number of a token from `low` to `high`; raise an exception otherwise."""
    if type(value) is not float and type(value) is not int:
        raise TypeError("not a number")
    if not low <= value <= high:  # false for NaN, too
        raise ValueError("out of range")
    return value


def fingerprints(value: object) -> dict[str, str]:
    """Return the fingerprints of a request's fields; raise TypeError otherwise."""
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return {text(name): text(digest) for name, digest in value.items()}
