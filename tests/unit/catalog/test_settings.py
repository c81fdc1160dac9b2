"""Invalid settings are refused when the Catalog starts."""

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
