"""Composition of the Gateway from its settings."""

from __future__ import annotations

import time

import grpc.aio

from imagesearch.gateway.v1 import image_search_service_pb2_grpc
from imagesearch_services.common.channels import connect
from imagesearch_services.common.concurrency import both
from imagesearch_services.common.server import Service
from imagesearch_services.gateway.access import require_token
from imagesearch_services.gateway.admission import Admission
from imagesearch_services.gateway.call_limit import CallLimit, CallLimitSettings
from imagesearch_services.gateway.callers import CallLimits
from imagesearch_services.gateway.clients import catalog as catalog_client
from imagesearch_services.gateway.clients import embedding as embedding_client
from imagesearch_services.gateway.clients.catalog import CatalogClient
from imagesearch_services.gateway.clients.embedding import EmbeddingClient
from imagesearch_services.gateway.contract import limits
from imagesearch_services.gateway.contract.server_info import write_server_info
from imagesearch_services.gateway.duplicates.copy_check import CopyCheck
from imagesearch_services.gateway.duplicates.copy_classifier import CopyClassifier
from imagesearch_services.gateway.duplicates.finder import DuplicateFinder
from imagesearch_services.gateway.duplicates.tokens import DuplicateTokens
from imagesearch_services.gateway.duplicates.turns import Turns
from imagesearch_services.gateway.library.cache import LibraryCache
from imagesearch_services.gateway.library.images import Images
from imagesearch_services.gateway.library.libraries import Libraries
from imagesearch_services.gateway.scoring.calibration import BUILT_IN_TABLES, Calibrations
from imagesearch_services.gateway.scoring.comparison import Comparisons, load_judges
from imagesearch_services.gateway.search.annotations import Drawings
from imagesearch_services.gateway.search.page_tokens import PageTokens
from imagesearch_services.gateway.search.searches import Searches
from imagesearch_services.gateway.servicer import SERVICE, Domain, ImageSearchServicer
from imagesearch_services.gateway.settings import Settings
from imagesearch_services.gateway.tokens import TokenKey

SINGLE_METHODS = ("SearchImages", "AddImage", "DetectSubjects", "CompareImages")
"""Methods with one picture or two."""
BATCH_METHODS = ("BatchSearchImages", "BatchAddImages")
OTHER_METHODS = (
    "CreateLibrary",
    "GetLibrary",
    "ListLibraries",
    "UpdateLibrary",
    "DeleteLibrary",
    "GetImage",
    "GetServerInfo",
    "GetThumbnail",
    "UpdateImage",
    "DeleteImage",
    "DeleteImages",
    "RejectPairs",
)
"""Methods without a picture. FindDuplicates has a limit of its own."""
LIST_LIMIT = CallLimitSettings(initial=8, minimum=4, maximum=16)
"""Bounds of the calls of ListImages in progress: a page of images with many tags has megabytes, of
which the Gateway holds several copies while it converts them."""
OTHER_LIMIT = CallLimitSettings(initial=256, minimum=32, maximum=512)
"""Bounds of the calls without pictures in progress. They are seldom refused: the Catalog answers
most of them within milliseconds."""


def build(settings: Settings) -> Service:
    """Return the service. Call this in the event loop that runs the service.

    Raises:
        CalibrationError: a calibration table is invalid.
    """
    folders = [BUILT_IN_TABLES, *filter(None, [settings.calibration_dir])]
    calibrations = Calibrations.load(folders)
    embedding_channel = connect(settings.embedding_target, embedding_client.SERVICE)
    catalog_channel = connect(
        settings.catalog_target, catalog_client.SERVICE, catalog_client.NEVER_RETRIED
    )
    singles = CallLimit("calls with pictures", settings.call_limit)
    batches = CallLimit("batches", settings.batch_limit)
    lists = CallLimit("lists of images", LIST_LIMIT)
    others = CallLimit("calls without pictures", OTHER_LIMIT)
    embedding = EmbeddingClient(
        embedding_channel,
        settings.embedding_timeout_s,
        on_turn=lambda pictures, wait_s: (singles if pictures == 1 else batches).waited(wait_s),
    )
    catalog = CatalogClient(catalog_channel, settings.catalog_timeout_s)
    cache = LibraryCache(catalog)
    token_key = TokenKey(
        settings.page_token_key, None if settings.page_token_key else catalog.page_token_key
    )
    domain = Domain(
        libraries=Libraries(embedding, catalog, cache, calibrations),
        images=Images(embedding, catalog, cache, settings.add, on_overload=batches.back_off),
        searches=Searches(
            embedding=embedding,
            catalog=catalog,
            libraries=cache,
            calibrations=calibrations,
            tokens=PageTokens(token_key, time.time),
            settings=settings.search,
        ),
        duplicates=DuplicateFinder(
            catalog=catalog,
            check=CopyCheck(catalog=catalog, embedding=embedding, classifier=CopyClassifier.load()),
            libraries=cache,
            calibrations=calibrations,
            tokens=DuplicateTokens(token_key),
            turns=Turns(settings.max_duplicates_calls),
            default_max_false_positive_rate=settings.search.default_max_false_positive_rate,
            min_library_size=settings.search.min_library_size,
        ),
        drawings=Drawings(embedding, catalog),
        comparisons=Comparisons(embedding, load_judges()),
        admission=Admission(settings.max_in_flight_bytes),
        server_info=write_server_info(settings),
    )
    servicer = ImageSearchServicer(
        domain, batch_concurrency=settings.search.batch_concurrency, on_overload=batches.back_off
    )

    def register(server: grpc.aio.Server) -> None:
        image_search_service_pb2_grpc.add_ImageSearchServiceServicer_to_server(servicer, server)

    async def check() -> None:
        await both(embedding.check(), catalog.check())

    async def close() -> None:
        await both(embedding_channel.close(), catalog_channel.close())

    return Service(
        name="gateway",
        max_request_bytes={
            f"/{SERVICE}/{method}": size_bytes
            for method, size_bytes in limits.MAX_REQUEST_BYTES.items()
        },
        descriptor_names=(SERVICE,),
        register=register,
        settings=settings.server,
        check=check,
        close=close,
        authorize=require_token(settings.tokens),
        admission=CallLimits(
            {
                **dict.fromkeys(SINGLE_METHODS, singles),
                **dict.fromkeys(BATCH_METHODS, batches),
                "ListImages": lists,
                **dict.fromkeys(OTHER_METHODS, others),
            }
        ),
    )
