"""Which calls the clients retry, derived from the contracts."""

from __future__ import annotations

import json

from imagesearch.client import _channel
from imagesearch_services.common.channels import retried_methods
from imagesearch_services.gateway.clients import catalog, embedding


def test_the_gateway_retries_reads_of_the_catalog_but_neither_mutations_nor_exceptions() -> None:
    retried = set(retried_methods(catalog.SERVICE, catalog.NEVER_RETRIED))
    assert {"GetLibrary", "ListLibraries", "GetEntries", "ListEntries", "QueryEntries"} <= retried
    assert retried.isdisjoint({"CreateLibrary", "PutEntries", "UpdateEntry", "DeleteEntries"})
    assert "GetThumbnails" not in retried


def test_every_exception_is_a_read_that_would_be_retried_otherwise() -> None:
    assert set(catalog.NEVER_RETRIED) <= set(retried_methods(catalog.SERVICE))


def test_the_gateway_retries_every_call_of_the_embedding_service() -> None:
    assert retried_methods(embedding.SERVICE) == [m.name for m in embedding.SERVICE.methods]


def test_the_python_client_retries_every_call_since_mutations_have_request_ids() -> None:
    options = dict(_channel.CHANNEL_OPTIONS)
    [config] = json.loads(str(options["grpc.service_config"]))["methodConfig"]
    retried = {name["method"] for name in config["name"]}
    assert retried == {method.name for method in _channel.SERVICE.methods}
