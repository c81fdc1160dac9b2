"""Types and number of tags; filters on tags before and after they are indexed."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.common.errors import Reason
from imagesearch_services.common.status import from_status
from tests.contract.catalog.support import (
    Catalog,
    has,
    make_entry,
    reason_of,
    running_catalog,
    settings_for,
    tag,
    where,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

MAX_TAG_NAMES = 1000


async def test_integers_and_floats_share_a_tag(catalog: Catalog, library: str) -> None:
    await catalog.store(library, make_entry("one", tags={"price": 1}))
    # The filter creates an index for integers, which must not hide the float that follows.
    assert await catalog.find(library, where("tags.price", ">", 0)) == {"one"}
    await catalog.store(library, make_entry("half", tags={"price": 1.5}))
    await catalog.store(library, make_entry("two", tags={"price": 2}))
    assert await catalog.find(library, where("tags.price", "=", 1)) == {"one"}
    assert await catalog.find(library, where("tags.price", ">", 1)) == {"half", "two"}
    assert await catalog.find(library, where("tags.price", "<=", 1.5)) == {"one", "half"}
    assert await catalog.find(library, where("tags.price", "!=", 2)) == {"one", "half"}
    (stored,) = await catalog.get(library, "two")
    assert stored.tags["price"] == tag(2)


async def test_a_tag_that_no_entry_has_may_change_its_type(catalog: Catalog, library: str) -> None:
    await catalog.store(library, make_entry("text", tags={"price": "12"}))
    assert await catalog.find(library, where("tags.price", "=", "12")) == {"text"}
    (refused,) = await catalog.put(library, make_entry("number", tags={"price": 12}))
    assert reason_of(refused) is Reason.TAG_TYPE_MISMATCH
    await catalog.stub.DeleteEntries(
        pb.DeleteEntriesRequest(library_id=library, image_ids=["text"])
    )
    number, text = await catalog.put(
        library,
        make_entry("number", tags={"price": 12}),
        make_entry("text", tags={"price": "12"}),
    )
    assert reason_of(number) is None
    assert reason_of(text) is Reason.TAG_TYPE_MISMATCH
    assert await catalog.find(library, where("tags.price", ">=", 12)) == {"number"}


async def test_a_library_refuses_too_many_tag_names(catalog: Catalog, library: str) -> None:
    full = [
        make_entry(str(first), tags={f"t{first + n}": 1 for n in range(50)})
        for first in range(0, MAX_TAG_NAMES, 50)
    ]
    results = await catalog.put(
        library, *full, make_entry("new name", tags={"z": 1}), make_entry("known", tags={"t7": 2})
    )
    assert [reason_of(result) for result in results] == [
        *[None] * len(full),
        Reason.TOO_MANY_TAG_NAMES,
        None,
    ]
    error = from_status(results[-2].error)
    assert error is not None
    assert error.metadata == {"library": f"libraries/{library}", "limit": str(MAX_TAG_NAMES)}
    assert await catalog.find(library, has("tags.t999")) == {"950"}
    assert await catalog.find(library, has("tags.z")) == set()


async def test_names_of_deleted_tags_are_free_again(tmp_path: Path) -> None:
    async with running_catalog(settings_for(tmp_path, MAX_TAG_NAMES="2")) as catalog:
        await catalog.make_library("shop")
        await catalog.store("shop", make_entry("a", tags={"kept": 1}))
        await catalog.store("shop", make_entry("b", tags={"gone": 1}))
        await catalog.stub.DeleteEntries(
            pb.DeleteEntriesRequest(library_id="shop", image_ids=["b"])
        )
        await catalog.store("shop", make_entry("c", tags={"new": 1}))
        assert await catalog.find("shop", has("tags.kept")) == {"a"}
        assert await catalog.find("shop", where("tags.new", "=", 1)) == {"c"}


async def test_the_number_of_libraries_is_limited(tmp_path: Path) -> None:
    async with running_catalog(settings_for(tmp_path, MAX_LIBRARIES="1")) as catalog:
        await catalog.make_library("first")
        with pytest.raises(Exception, match="the maximum") as caught:
            await catalog.make_library("second")
        assert "FAILED_PRECONDITION" in str(caught.value)
