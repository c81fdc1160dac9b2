"""Errors of the services behind the Gateway."""

from __future__ import annotations

import pytest

from imagesearch_services.common.errors import FieldViolation, Reason, field_error
from imagesearch_services.gateway.clients.peers import with_public_fields


@pytest.mark.parametrize("field", ["items[3].regions[0]", "regions[0]", "region"])
def test_fields_of_internal_requests_are_renamed_to_public_fields(field: str) -> None:
    error = with_public_fields(field_error(field, "is empty", reason=Reason.REGION_INVALID))
    assert error.fields == (FieldViolation("region", "is empty"),)
    assert error.message == "region: is empty"
    assert error.metadata == {"field": "region"}
