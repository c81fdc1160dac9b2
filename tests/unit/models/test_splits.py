"""Which pictures artefacts are made from, and which ones measure them."""

from __future__ import annotations

from imagesearch_services.models.common.pictures import random_source
from imagesearch_services.models.copies import split as copies
from imagesearch_services.models.product.splits import embedding_split, parser_split

NAMES = [f"garments/hat/{number}.jpg" for number in range(4_300)]


def test_no_picture_of_the_copies_benchmark_has_two_roles() -> None:
    parts = copies.split(NAMES)
    roles = [parts.background, parts.stored, parts.strangers, parts.calibration]
    assert [len(role) for role in roles[:2]] == [copies.BACKGROUND, copies.STORED]
    assert sum(map(len, roles)) == len({name for role in roles for name in role}) == len(NAMES)
    assert set(parts.originals) <= set(parts.stored)


def test_pictures_that_were_taken_moments_apart_are_used_once() -> None:
    (first, second) = ("garments/a/1.jpg", "garments/a/2.jpg")
    same = copies.related_pictures()["same"][0]
    parts = copies.split([*NAMES, *same, first, second])
    used = {*parts.background, *parts.stored, *parts.strangers, *parts.calibration}
    assert len(used & set(same)) == 1
    assert {first, second} <= used


def test_no_product_is_in_two_folds() -> None:
    products = [name for fold in embedding_split().folds for name in fold]
    assert len(products) == len(set(products)) == 55


def test_parser_and_embedding_hold_out_the_same_garments() -> None:
    assert parser_split().garments == embedding_split().garments_held_out


def test_a_random_source_depends_on_its_names_alone() -> None:
    assert random_source("crop", "a.jpg").random() == random_source("crop", "a.jpg").random()
    assert random_source("crop", "a.jpg").random() != random_source("crop", "b.jpg").random()
