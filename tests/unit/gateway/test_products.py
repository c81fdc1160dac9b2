"""Product libraries: when subjects are detected, and what is stored and returned of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import (
    Attribute,
    Box,
    Category,
    Color,
    LibraryType,
    ModelVersion,
    Subject,
)
from imagesearch_services.gateway.library.cache import LibraryCache
from imagesearch_services.gateway.library.images import Images
from imagesearch_services.gateway.model import (
    EmbeddedPicture,
    ImageFields,
    Library,
    NewEntry,
    NewImage,
    PictureToEmbed,
    Relation,
    StoredImage,
)
from imagesearch_services.gateway.ports import Embedded
from imagesearch_services.gateway.scoring.calibration import Calibrations
from imagesearch_services.gateway.search.answer import SearchAnswer
from imagesearch_services.gateway.search.page_tokens import PageTokens
from imagesearch_services.gateway.search.request import PictureQuery, SearchRequest, StoredQuery
from imagesearch_services.gateway.search.searches import Searches
from imagesearch_services.gateway.settings import AddSettings, SearchSettings
from imagesearch_services.gateway.tokens import TokenKey
from tests.unit.gateway.fakes import TABLE, WHOLE, FakeCatalog, FakeEmbedding, library, stored

GOODS = ModelVersion("product", "goods", "1")
PARSER = ModelVersion("subjects", "parser", "7")
COAT, SHOE = Box(1, 2, 30, 40), Box(5, 50, 20, 60)
REGION = Box(0, 0, 50, 70)
SUBJECTS = (
    Subject(
        box=COAT,
        category=Category.TOPS,
        score=0.9,
        colors=(Color("red", "#c00000", 0.7),),
        attributes=(Attribute("kind", "outwear", 0.8),),
    ),
    Subject(box=SHOE, category=Category.SHOES, score=0.8),
)


def shop() -> Library:
    return library(type=LibraryType.PRODUCT, models=(GOODS,))


@dataclass
class DetectingEmbedding(FakeEmbedding):
    """Detects the same subjects in every picture."""

    subjects: Sequence[Subject] = SUBJECTS

    async def embed(
        self,
        pictures: Sequence[PictureToEmbed],
        spaces: Sequence[str],
        *,
        thumbnail_max_side_px: int = 0,
    ) -> Embedded:
        embedded = await super().embed(
            pictures, spaces, thumbnail_max_side_px=thumbnail_max_side_px
        )
        outcomes = [
            outcome if isinstance(outcome, ServiceError) else self._detected(picture, outcome)
            for picture, outcome in zip(pictures, embedded.pictures, strict=True)
        ]
        detects = any(picture.subject_detection for picture in pictures)
        return replace(embedded, pictures=outcomes, detection_models=[PARSER] if detects else [])

    def _detected(self, picture: PictureToEmbed, outcome: EmbeddedPicture) -> EmbeddedPicture:
        (region,) = outcome.regions
        if not picture.subject_detection or not self.subjects:
            subject = Subject(box=region.box, category=Category.OTHER, score=0.4)
            return replace(outcome, regions=[replace(region, subject=subject)])
        in_category = (
            row for row, subject in enumerate(self.subjects) if subject.category is picture.category
        )
        chosen = next(in_category, 0)
        subject = self.subjects[chosen]
        return replace(
            outcome,
            regions=[replace(region, box=subject.box, subject=subject)],
            subjects=self.subjects,
            chosen_subject=chosen,
        )


@dataclass
class Bench:
    """Services that search and add images, on fakes."""

    embedding: DetectingEmbedding = field(default_factory=DetectingEmbedding)
    catalog: FakeCatalog = field(default_factory=lambda: FakeCatalog(shop()))

    def __post_init__(self) -> None:
        cache = LibraryCache(self.catalog, lambda: 0.0)
        self.catalog.similarities[(GOODS.space, b"photo")] = {"a": 0.9, "b": 0.5, "c": 0.1}
        self.images = Images(self.embedding, self.catalog, cache, AddSettings())
        self.searches = Searches(
            embedding=self.embedding,
            catalog=self.catalog,
            libraries=cache,
            calibrations=Calibrations({GOODS.space: TABLE}),
            tokens=PageTokens(TokenKey(b""), lambda: 0.0),
            settings=SearchSettings(min_library_size=1),
        )

    async def search(self, *, region: Box | None = None, **changes: object) -> SearchAnswer:
        request = SearchRequest(
            library_id="shop", query=PictureQuery(b"photo", region), filter=None, page_size=10
        )
        return await self.searches.search(replace(request, **changes))  # type: ignore[arg-type]

    async def add(
        self, *, category: Category | None = None, **changes: object
    ) -> tuple[NewEntry, StoredImage]:
        image = NewImage(image_id="x", content=b"photo", fields=ImageFields(category=category))
        stored = await self.images.add("shop", replace(image, **changes))  # type: ignore[arg-type]
        return self.catalog.puts[-1][0], stored

    @property
    def requested(self) -> PictureToEmbed:
        return self.embedding.calls[-1][0][0]


def ids(answer: SearchAnswer) -> list[str]:
    return [match.image.image_id for match in answer.matches]


async def test_a_search_costs_one_embedding_and_one_query() -> None:
    bench = Bench()
    answer = await bench.search()
    assert len(bench.embedding.calls) == len(bench.catalog.queries) == 1
    assert bench.embedding.calls[0][1] == [GOODS.space]
    assert bench.requested.subject_detection
    assert (answer.subjects, answer.chosen_subject) == (SUBJECTS, 0)
    assert answer.searched_region == COAT
    assert answer.models == [GOODS, PARSER]
    assert not answer.warnings


async def test_without_a_bound_the_nearest_images_are_returned() -> None:
    bench = Bench()
    assert ids(await bench.search()) == ["a", "b", "c"]
    assert bench.catalog.queries[0].min_similarity is None
    (threshold,) = (await bench.search()).thresholds
    assert threshold.relation is Relation.UNSPECIFIED
    assert ids(await bench.search(max_false_positive_rate=1e-6)) == ["a"]


async def test_a_category_chooses_the_subject() -> None:
    bench = Bench()
    answer = await bench.search(category=Category.SHOES)
    assert answer.chosen_subject == 1
    assert answer.searched_region == SHOE
    assert not answer.warnings


async def test_a_category_without_a_subject_is_a_warning() -> None:
    answer = await Bench().search(category=Category.BAG)
    assert answer.chosen_subject == 0
    assert "BAG" in answer.warnings[0]
    assert "TOPS" in answer.warnings[0]


async def test_a_region_is_searched_as_given_unless_detection_is_requested() -> None:
    bench = Bench()
    answer = await bench.search(region=REGION)
    assert not bench.requested.subject_detection
    assert answer.searched_region == REGION
    assert [subject.box for subject in answer.subjects] == [REGION]
    assert answer.chosen_subject == 0
    await bench.search(region=REGION, subject_detection=True)
    assert (bench.requested.subject_detection, bench.requested.region) == (True, REGION)


async def test_detection_can_be_disabled() -> None:
    bench = Bench()
    answer = await bench.search(subject_detection=False)
    assert not bench.requested.subject_detection
    assert (answer.searched_region, answer.chosen_subject) == (WHOLE, None)
    assert not answer.warnings


async def test_a_picture_without_a_subject_is_a_warning() -> None:
    bench = Bench(DetectingEmbedding(subjects=()))
    answer = await bench.search()
    assert (answer.searched_region, answer.chosen_subject) == (WHOLE, None)
    assert answer.warnings
    entry, stored = await bench.add()
    assert (entry.region, entry.subject, entry.fields.category) == (WHOLE, None, None)
    assert stored.warnings == answer.warnings


async def test_a_stored_query_has_no_subject_detection() -> None:
    bench = Bench()
    with pytest.raises(ServiceError) as caught:
        await bench.search(query=StoredQuery("a"), subject_detection=True)
    assert caught.value.reason is Reason.FIELD_INVALID


async def test_relations_are_refused() -> None:
    with pytest.raises(ServiceError) as caught:
        await Bench().search(relations=(Relation.SIMILAR,))
    assert caught.value.reason is Reason.LIBRARY_TYPE_MISMATCH
    assert caught.value.metadata == {"library": "libraries/shop", "type": "PRODUCT"}


async def test_later_pages_repeat_the_subjects_and_warnings_of_the_query() -> None:
    bench = Bench()
    bench.catalog.images = {image_id: stored(image_id) for image_id in ("a", "b", "c")}
    first = await bench.search(page_size=1, category=Category.BAG)
    second = await bench.search(
        page_size=1, query=None, page_token=first.next_page_token, category=Category.BAG
    )
    assert [subject.box for subject in second.subjects] == [COAT, SHOE]
    assert second.chosen_subject == first.chosen_subject
    assert list(second.warnings) == list(first.warnings)
    assert second.models[0] == GOODS


async def test_the_main_subject_is_stored_with_its_category() -> None:
    bench = Bench()
    entry, answer = await bench.add()
    assert bench.requested.subject_detection
    assert (entry.region, entry.subject) == (COAT, SUBJECTS[0])
    assert entry.fields.category is Category.TOPS
    assert not answer.warnings


async def test_the_callers_category_chooses_the_subject_and_is_stored() -> None:
    bench = Bench()
    entry, answer = await bench.add(category=Category.SHOES)
    assert (entry.region, entry.fields.category) == (SHOE, Category.SHOES)
    assert not answer.warnings
    entry, answer = await bench.add(category=Category.TOY)
    assert (entry.region, entry.fields.category) == (COAT, Category.TOY)
    assert "TOY" in answer.warnings[0]


@pytest.mark.parametrize(
    ("changes", "box"), [({"region": REGION}, REGION), ({"subject_detection": False}, WHOLE)]
)
async def test_a_region_of_the_caller_is_the_subject(changes: dict[str, object], box: Box) -> None:
    bench = Bench()
    entry, answer = await bench.add(**changes)
    assert not bench.requested.subject_detection
    assert entry.region == box
    assert entry.subject is not None
    assert entry.subject.box == box
    assert entry.fields.category is Category.OTHER
    assert not answer.warnings
