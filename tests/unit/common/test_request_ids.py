"""Which request ids are accepted from callers."""

from __future__ import annotations

import pytest

from imagesearch_services.common.context import begin_call, request_id


@pytest.mark.parametrize("given", ["a", "A-1._:", "f" * 128, "7d1b/4+x=@y"])
def test_a_printable_request_id_is_kept(given: str) -> None:
    assert begin_call(given, None) == given
    assert request_id() == given


@pytest.mark.parametrize("given", [None, "", "f" * 129, "é", "a b", "a\n", 'a"', "\x00", "%00"])
def test_any_other_request_id_is_replaced(given: str | None) -> None:
    assert begin_call(given, None) != given
    assert len(request_id()) == 32
