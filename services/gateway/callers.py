"""Tells the callers of the Gateway apart, and limits the calls of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from imagesearch_services.gateway.call_limit import CallLimit


def limit_calls(
    limits: Mapping[str, CallLimit],
) -> Callable[[str, dict[str, str], str], AbstractContextManager[None]]:
    """Return the admission of calls by full method name, metadata and address of the peer.

    Args:
        limits: limits by method name, for example "SearchImages"; other methods have none.
    """

    def admit(method: str, metadata: dict[str, str], peer: str) -> AbstractContextManager[None]:
        limit = limits.get(method.rpartition("/")[2])
        return nullcontext() if limit is None else limit.admit(caller_of(metadata, peer))

    return admit


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
