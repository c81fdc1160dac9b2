"""Searching by vectors, on both backends."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.type.v1 import model_pb2
from imagesearch_services.common.errors import Reason
from tests.contract.catalog.support import (
    SPACE,
    Catalog,
    make_entry,
    random_units,
    refused,
    vector_at,
    where,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_hits_are_ordered_by_cosine_similarity(catalog: Catalog, library: str) -> None:
    await catalog.store(library, *(make_entry(f"{n}", vector_at(n)) for n in (0, 60, 20, 40)))
    (hits,) = await catalog.query(library, vector_at(10), include_entries=True)
    assert {hit.entry.image_id for hit in hits[:2]} == {"0", "20"}
    assert [hit.entry.image_id for hit in hits[2:]] == ["40", "60"]
    expected = [math.cos(math.radians(degrees)) for degrees in (10, 10, 30, 50)]
    assert [hit.similarity for hit in hits] == pytest.approx(expected, abs=1e-5)


async def test_the_first_hits_come_with_their_entries(catalog: Catalog, library: str) -> None:
    await catalog.store(
        library,
        *(make_entry(f"{n}", vector_at(n), entity_id=f"{n // 20}") for n in (0, 10, 20, 30, 40)),
    )
    queries = (vector_at(0), vector_at(40))
    results = await catalog.query(library, *queries, include_entries=True, entry_count=2)
    assert [[hit.entry.image_id for hit in hits] for hits in results] == [
        ["0", "10", "", "", ""],
        ["40", "30", "", "", ""],
    ]
    assert [len({hit.uid for hit in hits}) for hits in results] == [5, 5]
    (hits,) = await catalog.query(
        library, vector_at(0), include_entries=True, entry_count=2, distinct_entities=True
    )
    assert [hit.entry.image_id for hit in hits] == ["0", "20", ""]
    assert not hits[2].HasField("entry")
    with refused(Reason.FIELD_INVALID):
        await catalog.query(library, vector_at(0), entry_count=2)
    with refused(Reason.FIELD_INVALID):
        await catalog.query(library, vector_at(0), include_entries=True, entry_count=-1)


async def test_results_are_in_the_order_of_the_query_vectors(
    catalog: Catalog, library: str
) -> None:
    vectors = random_units(100, seed=1)
    await catalog.store(library, *(make_entry(f"{n}", v) for n, v in enumerate(vectors)))
    results = await catalog.query(library, *vectors, limit=3, include_entries=True)
    assert [hits[0].entry.image_id for hits in results] == [f"{n}" for n in range(100)]
    assert {len(hits) for hits in results} == {3}


async def test_a_merged_query_returns_each_entry_once_with_its_best_similarity(
    catalog: Catalog, library: str
) -> None:
    await catalog.store(library, *(make_entry(f"{n}", vector_at(n)) for n in (0, 30, 60)))
    query = {"merged": True, "include_entries": True}
    (hits,) = await catalog.query(library, vector_at(1), vector_at(32), vector_at(3), **query)
    assert [hit.entry.image_id for hit in hits] == ["0", "30", "60"]
    expected = [math.cos(math.radians(degrees)) for degrees in (1, 2, 28)]
    assert [hit.similarity for hit in hits] == pytest.approx(expected, abs=1e-5)
    (hits,) = await catalog.query(library, vector_at(1), vector_at(32), merged=True, limit=2)
    assert len(hits) == 2
    unmatched = where("tags.unknown", "=", 1)
    results = await catalog.query(
        library, vector_at(1), vector_at(3), merged=True, filter=unmatched
    )
    assert results == [[]]
    with refused(Reason.FIELD_INVALID):
        await catalog.query(library, vector_at(0), merged=True, distinct_entities=True)


async def test_a_merged_query_limits_the_hits_of_each_vector(
    catalog: Catalog, library: str
) -> None:
    await catalog.store(library, *(make_entry(f"{n}", vector_at(n)) for n in (0, 2, 4, 60, 62)))
    query = {"merged": True, "include_entries": True, "limit": 4}
    (hits,) = await catalog.query(library, vector_at(-1), vector_at(66), **query)
    assert [hit.entry.image_id for hit in hits] == ["0", "2", "62", "4"]
    (hits,) = await catalog.query(
        library, vector_at(-1), vector_at(66), merged_hits_per_vector=1, **query
    )
    assert [hit.entry.image_id for hit in hits] == ["0", "62"]
    (hits,) = await catalog.query(library, vector_at(-1), merged_hits_per_vector=9, **query)
    assert len(hits) == 4
    with refused(Reason.FIELD_INVALID):
        await catalog.query(library, vector_at(0), merged=True, merged_hits_per_vector=-1)


async def test_a_merged_query_finds_the_same_hits_as_separate_queries(
    catalog: Catalog, library: str
) -> None:
    stored = random_units(300, seed=3)
    await catalog.store(library, *(make_entry(f"{n}", v) for n, v in enumerate(stored)))
    queries = random_units(100, seed=4)
    best: dict[bytes, float] = {}
    for hits in await catalog.query(library, *queries, limit=7):
        for hit in hits:
            best[hit.uid] = max(hit.similarity, best.get(hit.uid, -1.0))
    expected = sorted(best.items(), key=lambda item: -item[1])
    for limit in (20, 1000):
        (hits,) = await catalog.query(
            library, *queries, merged=True, merged_hits_per_vector=7, limit=limit
        )
        assert [hit.uid for hit in hits] == [uid for uid, _ in expected[:limit]]
        similarities = [similarity for _, similarity in expected[:limit]]
        assert [hit.similarity for hit in hits] == pytest.approx(similarities, abs=1e-5)
    floor = (expected[40][1] + expected[41][1]) / 2
    (hits,) = await catalog.query(
        library, *queries, merged=True, merged_hits_per_vector=7, limit=1000, min_similarity=floor
    )
    assert [hit.uid for hit in hits] == [uid for uid, _ in expected[:41]]


async def test_hits_without_entries_have_only_uid_and_similarity(
    catalog: Catalog, library: str
) -> None:
    (stored,) = await catalog.store(library, make_entry("a", tags={"n": 1}))
    ((hit,),) = await catalog.query(library, vector_at(0))
    assert hit.uid == stored.uid
    assert not hit.HasField("entry")
    ((hit,),) = await catalog.query(library, vector_at(0), include_entries=True)
    assert hit.entry == stored


async def test_hits_have_no_features(catalog: Catalog, library: str) -> None:
    await catalog.store(library, make_entry("a", features=b"\0blob"))
    ((hit,),) = await catalog.query(library, vector_at(0), include_entries=True)
    assert hit.entry.image_id == "a"
    assert hit.entry.features == b""


async def test_the_minimum_similarity_is_inclusive(catalog: Catalog, library: str) -> None:
    await catalog.store(library, *(make_entry(f"{n}", vector_at(n)) for n in (0, 30, 60)))
    (hits,) = await catalog.query(library, vector_at(0))
    for count, hit in enumerate(hits, start=1):
        (above,) = await catalog.query(library, vector_at(0), min_similarity=hit.similarity)
        assert len(above) == count
        higher = float(np.nextafter(np.float32(hit.similarity), np.float32(2)))
        (above,) = await catalog.query(library, vector_at(0), min_similarity=higher)
        assert len(above) == count - 1


async def test_the_limit_has_a_default_and_a_range(catalog: Catalog, library: str) -> None:
    vectors = random_units(1000, seed=2)
    await catalog.store(library, *(make_entry(f"{n}", v) for n, v in enumerate(vectors)))
    for limit, expected in ((0, 10), (1, 1), (1000, 1000), (1001, 1000)):
        (hits,) = await catalog.query(library, vectors[0], limit=limit)
        assert len(hits) == expected
    for limit in (-1, 1002):
        with refused(Reason.FIELD_INVALID):
            await catalog.query(library, vectors[0], limit=limit)


async def test_hits_match_the_filter(catalog: Catalog, library: str) -> None:
    await catalog.store(
        library, *(make_entry(f"{n}", vector_at(n), tags={"n": n}) for n in range(60))
    )
    found = await catalog.nearest(library, vector_at(0), filter=where("tags.n", ">=", 30), limit=3)
    assert found == ["30", "31", "32"]
    assert await catalog.nearest(library, vector_at(0), filter=where("tags.n", ">", 99)) == []


async def test_hits_are_the_nearest_entries_by_brute_force(catalog: Catalog, library: str) -> None:
    vectors = random_units(300, seed=3)
    await catalog.store(library, *(make_entry(f"{n}", v) for n, v in enumerate(vectors)))
    query = random_units(1, seed=4)[0]
    matrix = np.frombuffer(b"".join(vectors), "<f4").reshape(300, -1)
    best = np.argsort(-(matrix @ np.frombuffer(query, "<f4")))[:10]
    assert await catalog.nearest(library, query) == [f"{n}" for n in best]


async def test_distinct_entities_returns_the_best_hit_of_each_entity(
    catalog: Catalog, library: str
) -> None:
    numbers = itertools.count()

    def entries_of(count: int, entity_id: str, degrees: float) -> list[pb.Entry]:
        return [
            make_entry(f"{next(numbers)}", vector_at(degrees + n / 100), entity_id=entity_id)
            for n in range(count)
        ]

    await catalog.store(library, *entries_of(400, "crowd", 1), *entries_of(100, "near", 10))
    await catalog.store(
        library, *entries_of(2, "", 20), *entries_of(300, "far", 30), *entries_of(1, "last", 40)
    )
    for limit, expected in (
        (1, ["crowd"]),
        (4, ["crowd", "near", "", ""]),
        (6, ["crowd", "near", "", "", "far", "last"]),
        (50, ["crowd", "near", "", "", "far", "last"]),
    ):
        (hits,) = await catalog.query(
            library, vector_at(0), limit=limit, distinct_entities=True, include_entries=True
        )
        assert [hit.entry.entity_id for hit in hits] == expected
        assert hits[0].entry.image_id == "0"
    (bare,) = await catalog.query(library, vector_at(0), limit=6, distinct_entities=True)
    assert [hit.uid for hit in bare] == [hit.uid for hit in hits]
    assert not bare[0].HasField("entry")


async def test_distinct_entities_respects_filter_and_minimum_similarity(
    catalog: Catalog, library: str
) -> None:
    await catalog.store(
        library,
        *(
            make_entry(f"{n}", vector_at(n), entity_id=f"{n // 10}", tags={"n": n})
            for n in range(60)
        ),
    )
    (hits,) = await catalog.query(
        library,
        vector_at(0),
        limit=5,
        distinct_entities=True,
        include_entries=True,
        filter=where("tags.n", ">=", 5),
        min_similarity=math.cos(math.radians(35)),
    )
    assert [hit.entry.image_id for hit in hits] == ["5", "10", "20", "30"]


@pytest.mark.parametrize(
    "fields",
    [
        {"vectors": []},
        {"vectors": [{"space": SPACE, "values": vector_at(0)}] * 201},
        {"vectors": [{"space": "other@1", "values": vector_at(0)}]},
        {"vectors": [{"space": SPACE, "values": vector_at(0)[4:]}]},
        {"vectors": [{"space": SPACE, "values": bytes(64)}]},
        {
            "vectors": [
                {"space": SPACE, "values": vector_at(0)},
                {"space": "o@1", "values": vector_at(0)},
            ]
        },
        {"sparse_vector": {"space": SPACE, "indices": [1], "values": [1]}},
    ],
    ids=[
        "no vector",
        "too many vectors",
        "unknown space",
        "too few dimensions",
        "zero vector",
        "two spaces",
        "sparse vector for a dense space",
    ],
)
async def test_an_invalid_query_is_refused(
    catalog: Catalog, library: str, fields: dict[str, Any]
) -> None:
    await catalog.store(library, make_entry("a"))
    with refused(Reason.FIELD_INVALID if fields.get("vectors") != [] else Reason.FIELD_REQUIRED):
        await catalog.stub.QueryEntries(pb.QueryEntriesRequest(library_id=library, **fields))


async def test_rare_words_have_higher_weights_in_sparse_spaces(
    catalog: Catalog, new_id: str
) -> None:
    words = "words@1"
    await catalog.make_library(new_id, spaces=[{"name": words, "sparse": True}])

    def described(image_id: str, *indices: int) -> pb.Entry:
        entry = pb.Entry(image_id=image_id)
        entry.sparse_vectors.add(space=words, indices=indices, values=[1.0] * len(indices))
        return entry

    common = [described(f"common {n}", 1, 2) for n in range(20)]
    await catalog.store(new_id, described("rare", 1, 7), *common)
    response = await catalog.stub.QueryEntries(
        pb.QueryEntriesRequest(
            library_id=new_id,
            sparse_vector=model_pb2.SparseVector(space=words, indices=[2, 7], values=[1, 1]),
            include_entries=True,
        )
    )
    hits = response.results[0].hits
    assert hits[0].entry.image_id == "rare"
    assert hits[0].similarity > hits[1].similarity > 0
    (read,) = await catalog.get(new_id, "rare", include_vectors=True)
    assert list(read.sparse_vectors[0].indices) == [1, 7]
    results = await catalog.put(new_id, described("unsorted", 2, 1), described("twice", 1, 1))
    assert all("ascend" in result.error.message for result in results)


async def test_compact_spaces_approximate_similarities_closely(
    catalog: Catalog, new_id: str
) -> None:
    spaces = [
        {"name": SPACE, "dimensions": 128, "compact": True},
        {"name": "words@1", "sparse": True, "compact": True},
    ]
    made = await catalog.make_library(new_id, spaces=spaces)
    assert [space.compact for space in made.spaces] == [True, True]
    assert (await catalog.library(new_id)).spaces == made.spaces
    vectors = random_units(50, seed=5, dimensions=128)
    bags = [{"space": "words@1", "indices": [1, 9 + n], "values": [0.25, 1.1]} for n in range(50)]
    for number, (vector, bag) in enumerate(zip(vectors, bags, strict=True)):
        entry = make_entry(f"{number}", vector, sparse_vectors=[bag])
        await catalog.store(new_id, entry)
    (hits,) = await catalog.query(new_id, vectors[7], limit=50, include_entries=True)
    exact = np.frombuffer(b"".join(vectors), "<f4").reshape(-1, 128)
    cosines = exact @ exact[7]
    assert hits[0].entry.image_id == "7"
    assert [hit.similarity for hit in hits] == pytest.approx(
        [cosines[int(hit.entry.image_id)] for hit in hits], abs=5e-3
    )
    request = pb.QueryEntriesRequest(
        library_id=new_id, sparse_vector=bags[7], limit=1, include_entries=True
    )
    ((hit,),) = [list(result.hits) for result in (await catalog.stub.QueryEntries(request)).results]
    assert hit.entry.image_id == "7"
    (entry,) = await catalog.get(new_id, "7", include_vectors=True)
    np.testing.assert_allclose(np.frombuffer(entry.vectors[0].values, "<f4"), exact[7], atol=5e-3)


@pytest.mark.parametrize(("compact", "message"), [(True, "65,504"), (False, "")])
async def test_compact_weights_have_an_upper_bound(
    catalog: Catalog, new_id: str, compact: bool, message: str
) -> None:
    spaces = [{"name": "words@1", "sparse": True, "compact": compact}]
    await catalog.make_library(new_id, spaces=spaces)
    vector = {"space": "words@1", "indices": [1], "values": [-65_505.0]}
    (result,) = await catalog.put(new_id, pb.Entry(image_id="a", sparse_vectors=[vector]))
    assert message in result.error.message
    assert result.HasField("error") == compact
