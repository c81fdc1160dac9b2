"""Tells the callers of the Gateway apart, and limits the calls of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from imagesearch_services.gateway.call_limit import CallLimit


class CallLimits:
    """The limits of methods, by name, for example "SearchImages"; other methods have none."""

    def __init__(self, limits: Mapping[str, CallLimit]) -> None:
        self._limits = limits

    def check(self, method: str, metadata: dict[str, str], peer: str) -> None:
        """Refuse a call before its request is read, if it would be refused now.

        Raises:
            ServiceError: OVERLOADED.
        """
        limit = self._limit(method)
        if limit is not None:
            limit.check(caller_of(metadata, peer))

    def admit(
        self, method: str, metadata: dict[str, str], peer: str
    ) -> AbstractContextManager[None]:
        """Count a call while it is in progress.

        Raises:
            ServiceError: OVERLOADED.
        """
        limit = self._limit(method)
        return nullcontext() if limit is None else limit.admit(caller_of(metadata, peer))

    def _limit(self, method: str) -> CallLimit | None:
        return self._limits.get(method.rpartition("/")[2])


def caller_of(metadata: Mapping[str, str], peer: str) -> str:
    """Return what identifies a caller: its token, else its host.

    Args:
        metadata: metadata of the call.
        peer: address as gRPC writes it, "ipv4:10.0.0.1:4711", "ipv6:%5B::1%5D:4711" or "unix:".
    """
    token = metadata.get("authorization", "")
    if token:
        return hashlib.blake2b(token.encode(), digest_size=16).hexdigest()
    return peer.rpartition(":")[0]
