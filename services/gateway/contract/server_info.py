"""The answer of GetServerInfo: version and limits.

`all_limits` is the one list of the limits that callers can run into. A test compares it with the
README, the comments of the protos and the constants of the other services.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass

from imagesearch.gateway.v1 import server_info_pb2
from imagesearch_services.gateway import names
from imagesearch_services.gateway.contract import duplicates, filter_parser, limits
from imagesearch_services.gateway.search.page_tokens import LIFETIME_S
from imagesearch_services.gateway.search.token_format import MAX_ITEMS
from imagesearch_services.gateway.settings import Settings

DISTRIBUTION = "imagesearch"

MAX_PICTURE_PIXELS = 50_000_000
"""Limit of Embedding."""
MIN_PICTURE_SIDE_PX = 16
"""Limit of Embedding."""
MAX_LIBRARIES = 10_000
"""Default limit of the Catalog."""
MAX_TAG_NAMES = 1000
"""Default limit of the Catalog."""
MAX_LIBRARY_ID_CHARACTERS = 63
MAX_REQUEST_ID_HEADER_CHARACTERS = 128
"""See `common.context.REQUEST_ID`."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit, as callers see it."""

    name: str
    value: float
    unit: str
    description: str


def all_limits(settings: Settings) -> list[Limit]:
    """Return all limits. Add new ones here."""
    return [Limit(*fields) for fields in (*_request_limits(settings), *_caller_limits(settings))]


def write_server_info(settings: Settings) -> server_info_pb2.ServerInfo:
    return server_info_pb2.ServerInfo(
        version=importlib.metadata.version(DISTRIBUTION),
        limits=[
            server_info_pb2.Limit(
                name=limit.name,
                value=limit.value,
                unit=limit.unit,
                description=limit.description,
            )
            for limit in all_limits(settings)
        ],
    )


def _request_limits(settings: Settings) -> Iterator[tuple[str, float, str, str]]:
    # fmt: off
    yield "image_bytes", limits.MAX_IMAGE_BYTES, "bytes", "a picture file"
    yield "image_pixels", MAX_PICTURE_PIXELS, "pixels", "width × height of a picture"
    yield "min_image_side", MIN_PICTURE_SIDE_PX, "pixels", "the shorter side of a picture"
    yield "message_bytes", settings.server.max_message_bytes, "bytes", "a request or a response"
    yield "read_request_bytes", max(limits.MAX_REQUEST_BYTES.values()), "bytes", (
        "a request of a method without pictures; reads of one resource take at most "
        f"{min(limits.MAX_REQUEST_BYTES.values())}")
    yield "batch_items", limits.MAX_BATCH_ITEMS, "items", "pictures or searches of a batch"
    yield "page_size", limits.MAX_PAGE_SIZE, "items", "a page; a larger page_size is lowered to it"
    yield "page_bytes", 2**20, "bytes", "about, a page of ListImages; it ends earlier if need be"
    yield "ranking_items", MAX_ITEMS, "matches", "all pages of a search together"
    yield "page_token_lifetime", LIFETIME_S, "seconds", "validity of a page token of a search"
    yield "page_token_bytes", limits.MAX_PAGE_TOKEN_BYTES, "bytes", "a page token"
    yield "delete_names", limits.MAX_NAMES, "names", "names of a DeleteImages call"
    yield "reject_pairs", duplicates.MAX_PAIRS, "pairs", "pairs of a RejectPairs call"
    yield "filter_bytes", filter_parser.MAX_BYTES, "bytes", "a filter"
    yield "filter_depth", filter_parser.MAX_DEPTH, "levels", "parentheses and NOT of a filter"
    yield "libraries", MAX_LIBRARIES, "libraries", (
        "libraries of an installation, unless the Catalog sets another number")
    yield "library_tag_names", MAX_TAG_NAMES, "names", (
        "distinct tag names of a library, unless the Catalog sets another number")
    yield "library_id", MAX_LIBRARY_ID_CHARACTERS, "characters", "a library id"
    yield "image_id_bytes", names.MAX_ID_BYTES, "bytes", "an image id or an entity id"
    yield "image_tags", limits.MAX_TAGS, "tags", "tags of an image"
    yield "tag_value_bytes", limits.MAX_TAG_VALUE_BYTES, "bytes", "a string tag"
    yield "custom_content_bytes", limits.MAX_CUSTOM_CONTENT_BYTES, "bytes", (
        "the custom content of an image")
    yield "display_name_bytes", limits.MAX_DISPLAY_NAME_BYTES, "bytes", "the name of a library"
    yield "description_bytes", limits.MAX_DESCRIPTION_BYTES, "bytes", "its description"
    yield "request_id_bytes", limits.MAX_REQUEST_ID_BYTES, "bytes", "the request_id of a mutation"
    yield "request_id_header", MAX_REQUEST_ID_HEADER_CHARACTERS, "characters", (
        "the header x-request-id; others are replaced")
    # fmt: on


def _caller_limits(settings: Settings) -> Iterator[tuple[str, float, str, str]]:
    server = settings.server.limits
    # fmt: off
    yield "duplicates_calls", settings.max_duplicates_calls, "calls", (
        "FindDuplicates calls whose callers read, in each Gateway")
    yield "picture_calls", settings.call_limit.maximum, "calls", (
        "calls with pictures in progress, in each Gateway; fewer while they wait for Embedding")
    yield "batch_calls", settings.batch_limit.maximum, "calls", (
        "batches in progress, in each Gateway; fewer while they wait for Embedding")
    yield "open_calls", server.max_open_calls, "calls", "calls of all callers, in each Gateway"
    yield "caller_open_calls", int(server.max_open_calls * server.caller_share), "calls", (
        "calls of one caller, in each Gateway")
    yield "buffered_bytes", server.max_buffered_bytes, "bytes", (
        "requests and unread responses of all callers, in each Gateway")
    yield "caller_buffered_bytes", int(server.max_buffered_bytes * server.caller_share), "bytes", (
        "requests and unread responses of one caller, in each Gateway")
    yield "read_timeout", server.read_timeout_s, "seconds", "a pause while a request is sent"
    yield "write_timeout", server.write_timeout_s, "seconds", (
        "receiving a message, in addition to what min_transfer_rate allows")
    yield "min_transfer_rate", server.min_bytes_per_s, "bytes per second", (
        "the rate at which a request is sent and a response received")
    yield "metadata_bytes", server.max_metadata_bytes, "bytes", (
        "the headers of a call; some above half of it are refused")
    yield "connections", server.max_connections, "connections", "connections to each Gateway"
    yield "connection_calls", server.max_streams_per_connection, "calls", (
        "concurrent calls of a connection; clients delay further ones")
    yield "connection_idle", server.max_connection_idle_s, "seconds", "a connection without calls"
    yield "connection_age", server.max_connection_age_s, "seconds", (
        "a connection; clients reconnect")
    yield "connection_age_grace", server.max_connection_age_grace_s, "seconds", (
        "calls in progress on a connection of the maximum age")
    # fmt: on
