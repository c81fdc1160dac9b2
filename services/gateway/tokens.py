"""Helpers that all page tokens share."""

from __future__ import annotations

import hashlib

from imagesearch_services.common.errors import FieldViolation, Reason, ServiceError


def fingerprint(value: object) -> str:
    """Give a short digest of a request field; the same for the same value in every process."""
    raw = value if isinstance(value, bytes) else repr(value).encode()
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


def invalid_token(why: str) -> ServiceError:
    """Say that a page token can't be used."""
    return ServiceError(
        Reason.PAGE_TOKEN_INVALID,
        f"page_token: {why}",
        fields=[FieldViolation("page_token", why)],
    )
