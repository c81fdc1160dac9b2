"""Helpers that the page tokens of all RPCs share."""

from __future__ import annotations

import hashlib

from imagesearch_services.common.errors import FieldViolation, Reason, ServiceError


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
