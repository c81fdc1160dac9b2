"""Settings of the Embedding service."""

from __future__ import annotations

import pytest

from imagesearch_services.common.env import Env, SettingsError
from imagesearch_services.embedding.settings import PREFIX, Settings


def read(**variables: str) -> Settings:
    return Settings.from_env(
        Env(PREFIX, {PREFIX + name: value for name, value in variables.items()})
    )


def test_every_setting_has_a_default() -> None:
    settings = read()
    assert settings.triton_target == "127.0.0.1:8001"
    assert settings.workers >= 1


def test_settings_come_from_the_environment() -> None:
    settings = read(TRITON_TARGET="triton:8001", WORKERS="7", PIXEL_BUDGET="50000000")
    assert settings.triton_target == "triton:8001"
    assert settings.workers == 7


def test_a_pixel_budget_below_the_largest_picture_is_refused() -> None:
    with pytest.raises(SettingsError, match="PIXEL_BUDGET"):
        read(PIXEL_BUDGET="49999999")


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(SettingsError, match="TRITON_TARGT"):
        read(TRITON_TARGT="triton:8001")
