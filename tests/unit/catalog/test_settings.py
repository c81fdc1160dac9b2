"""Settings of the Catalog: invalid values are refused, and secrets are hidden."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagesearch_services.catalog.settings import Settings
from imagesearch_services.common.env import SettingsError


@pytest.mark.parametrize("name", ["BLOB_TIMEOUT_S", "BLOB_SWEEP_INTERVAL_S"])
def test_durations_of_the_blob_store_must_be_positive(name: str, tmp_path: Path) -> None:
    variables = {
        "IMAGESEARCH_CATALOG_DATA_DIR": str(tmp_path),
        f"IMAGESEARCH_CATALOG_{name}": "0",
    }
    with pytest.raises(SettingsError, match=name):
        Settings.from_env(variables)


def test_the_representation_of_settings_hides_the_api_key() -> None:
    settings = Settings.from_env({"IMAGESEARCH_CATALOG_API_KEY": "secret-key"})
    assert settings.api_key == "secret-key"
    assert "secret-key" not in repr(settings)


@pytest.mark.parametrize(
    "variables",
    [
        {"IMAGESEARCH_CATALOG_BACKEND": "other"},
        {"IMAGESEARCH_CATALOG_HNSW_M": "many"},
        {"IMAGESEARCH_CATALOG_HNWS_M": "16"},
    ],
)
def test_invalid_settings_are_refused(variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=next(iter(variables))):
        Settings.from_env(variables)
