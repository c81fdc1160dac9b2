"""Admission of work in progress."""

from __future__ import annotations

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.gateway.admission import Admission


def test_work_beyond_the_budget_is_rejected_until_other_work_ends() -> None:
    admission = Admission(100)
    with admission.admit(60):
        with admission.admit(40):
            pass
        with pytest.raises(ServiceError) as caught, admission.admit(41):
            pass
        assert caught.value.reason is Reason.OVERLOADED
        assert caught.value.retry_after_s
    with admission.admit(100):
        pass


def test_work_larger_than_the_budget_is_admitted_alone() -> None:
    admission = Admission(100)
    with (
        admission.admit(1000),
        pytest.raises(ServiceError),
        admission.admit(1),
    ):
        pass


def test_failed_work_releases_its_budget() -> None:
    admission = Admission(100)
    for _ in range(3):
        with pytest.raises(KeyError), admission.admit(100):
            raise KeyError
