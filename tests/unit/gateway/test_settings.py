"""Settings of the Gateway."""

from __future__ import annotations

import pytest

from imagesearch_services.common.env import Env, SettingsError
from imagesearch_services.gateway.settings import PREFIX, Settings


def test_settings_have_defaults_and_reject_unknown_variables() -> None:
    settings = Settings.from_env(Env(PREFIX, {f"{PREFIX}TOKENS": "a, b"}))
    assert settings.tokens == {"a", "b"}
    assert settings.search.default_max_false_positive_rate == 0.01
    with pytest.raises(SettingsError, match="TOKEN"):
        Settings.from_env(Env(PREFIX, {f"{PREFIX}TOKEN": "a"}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REGION_RATE_SHARE", "1"),
        ("REGION_RATE_SHARE", "0"),
        ("MAX_PROPOSED_REGIONS", "65"),
        ("CHUNK_PICTURES", "0"),
        ("CHUNKS_IN_FLIGHT", "-1"),
        ("DEFAULT_MAX_FALSE_POSITIVE_RATE", "nan"),
    ],
)
def test_a_number_out_of_range_is_rejected(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_env(Env(PREFIX, {PREFIX + name: value}))
