"""Errors of the services behind the Gateway."""

from __future__ import annotations

import pytest

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.common.errors import FieldViolation, Reason, ServiceError, field_error
from imagesearch_services.gateway.clients.catalog_messages import read_library
from imagesearch_services.gateway.clients.peers import with_public_fields
from imagesearch_services.gateway.contract.libraries import write_library
from imagesearch_services.gateway.errors import refuse_unknown_type


@pytest.mark.parametrize("field", ["items[3].regions[0]", "regions[0]", "region"])
def test_fields_of_internal_requests_are_renamed_to_public_fields(field: str) -> None:
    error = with_public_fields(field_error(field, "is empty", reason=Reason.REGION_INVALID))
    assert error.fields == (FieldViolation("region", "is empty"),)
    assert error.message == "region: is empty"
    assert error.metadata == {"field": "region"}


def test_a_library_type_of_a_later_version_is_kept_as_a_number() -> None:
    listed = read_library(pb.Library(library_id="shop", type=99))
    assert listed.type == 99
    assert write_library(listed).type == 99
    with pytest.raises(ServiceError) as caught:
        refuse_unknown_type(listed)
    assert caught.value.reason is Reason.LIBRARY_TYPE_MISMATCH
    assert caught.value.metadata == {"library": "libraries/shop", "type": "99"}
