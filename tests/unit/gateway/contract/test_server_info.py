"""The limits of GetServerInfo are those of the code, of the README and of the protos."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from imagesearch_services.catalog.entry.entries import MAX_PAGE_BYTES
from imagesearch_services.catalog.library.libraries import Libraries
from imagesearch_services.common.context import REQUEST_ID
from imagesearch_services.common.env import Env
from imagesearch_services.embedding.pictures import limits as picture_limits
from imagesearch_services.gateway.contract import server_info
from imagesearch_services.gateway.names import check_library_id
from imagesearch_services.gateway.settings import PREFIX, Settings

ROOT = Path(__file__).parents[4]
SETTINGS = Settings.from_env(Env(PREFIX, {}))
LIMITS = {limit.name: limit for limit in server_info.all_limits(SETTINGS)}
PROTOS = {
    "image_bytes": ("type/v1/picture.proto", "10 MiB"),
    "image_pixels": ("type/v1/picture.proto", "50 megapixels"),
    "batch_items": ("gateway/v1/image_search_service.proto", "up to 100 pictures"),
    "filter_bytes": ("gateway/v1/image_search_service.proto", "at most 4,096 bytes"),
    "display_name_bytes": ("gateway/v1/library.proto", "at most 255 bytes"),
    "description_bytes": ("gateway/v1/library.proto", "at most 4,096 bytes"),
    "library_id": ("gateway/v1/library.proto", "1 to 63 characters"),
}


def test_names_are_unique() -> None:
    assert len(LIMITS) == len(server_info.all_limits(SETTINGS))


def test_the_limits_of_other_services_are_theirs() -> None:
    defaults = inspect.signature(Libraries).parameters
    assert LIMITS["image_pixels"].value == picture_limits.MAX_PIXELS
    assert LIMITS["min_image_side"].value == picture_limits.MIN_SIDE_PX
    assert LIMITS["page_bytes"].value == MAX_PAGE_BYTES
    assert LIMITS["libraries"].value == defaults["max_libraries"].default
    assert LIMITS["library_tag_names"].value == defaults["max_tag_names"].default


def test_the_limits_of_ids_are_those_of_their_patterns() -> None:
    longest = "a" * int(LIMITS["library_id"].value)
    assert check_library_id(longest, field="library_id") == longest
    with pytest.raises(Exception, match="63"):
        check_library_id(longest + "a", field="library_id")
    longest = "a" * int(LIMITS["request_id_header"].value)
    assert REQUEST_ID.fullmatch(longest)
    assert not REQUEST_ID.fullmatch(longest + "a")


def test_the_readme_lists_every_limit_with_its_default() -> None:
    text = (ROOT / "services/gateway/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_]+)` \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    expected = {
        (limit.name, f"{limit.value:,.10g} {limit.unit}", limit.description)
        for limit in LIMITS.values()
    }
    assert set(rows) == expected


@pytest.mark.parametrize("name", PROTOS)
def test_the_comments_of_the_protos_name_the_limit(name: str) -> None:
    file, phrase = PROTOS[name]
    text = (ROOT / "protos/public/imagesearch" / file).read_text(encoding="utf-8")
    assert phrase in text
    number = re.search(r"\d[\d,]*(?= |$)", phrase.replace("1 to ", ""))
    assert number
    unit = {"MiB": 2**20, "megapixels": 10**6}.get(phrase.split()[-1], 1)
    assert int(number.group().replace(",", "")) * unit == LIMITS[name].value
