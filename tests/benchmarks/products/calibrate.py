"""Make what scores of product search rest on, from pictures of different products.

    python -m tests.benchmarks.products.calibrate

Writes two files. The background set (services/embedding/background_vectors): vectors of garments
and packages of many kinds, against which every similarity is judged, since two different shirts are
closer than two photos of one carton of milk. And the calibration table: how often does ONE
comparison of two different products give a closeness of x or more? Counted so that it gives the
share of queries with a wrong answer (see `copies.calibrate`, whose counting and score this uses):
shelf photos against all pictures of other grocery products, among them other flavours of the same
brand; and garments against other garments, of the same kind too. The table takes the worse of both
at each x. The background's own pictures are neither.

The embedding has learned from these products (it is fitted in closed form, shrunk by 0.9 towards
doing nothing); the table says what happens with goods of these sorts.
"""

from __future__ import annotations

import argparse
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import ModelVersion
from imagesearch_services.embedding.background import BUILT_IN, Background
from imagesearch_services.gateway.scoring.calibration import (
    BUILT_IN_TABLES,
    Calibrations,
    closeness,
)
from tests.benchmarks.copies.calibrate import Tail, thresholds, write_table
from tests.benchmarks.copies.dataset import all_names, data_folder
from tests.benchmarks.products.vectors import MODEL, SPACE, VERSION, Floats, subject_vectors

OF_KIND = 40
"""Garments of each kind."""
OF_PRODUCT = 6
"""Shelf photos of each product."""
BACKGROUND_OF_KIND = 25
"""Other garments of each kind in the background set; of each product, one other shelf photo: what
a query resembles most there is left out, and that must be all of its own product."""
INT8_MAX = 127
QUANTILES = (0.1, 0.5, 0.9)


def by_folder(data: Path, under: str) -> list[list[str]]:
    """List the pictures of each folder."""
    kept: dict[str, list[str]] = {}
    for name in all_names(data):
        if name.startswith(under):
            kept.setdefault(PurePosixPath(name).parent.name, []).append(name)
    return list(kept.values())


def make_background(data: Path) -> Background:
    """Write the background set and give it."""
    names = [names[0] for names in by_folder(data, "grocery/shelf/")]
    for names_of_kind in by_folder(data, "garments/"):
        names += names_of_kind[-BACKGROUND_OF_KIND:]
    vectors = subject_vectors(data, names)
    scale = INT8_MAX / np.abs(vectors).max()
    kept = np.rint(vectors * scale).astype(np.int8)
    np.save(BUILT_IN / f"{SPACE}.npy", kept)
    return Background(kept)


def groceries(data: Path) -> tuple[Floats, npt.NDArray[np.str_], npt.NDArray[np.bool_]]:
    """Give vectors, product names, and which are catalogue pictures."""
    shelf = [
        name for names in by_folder(data, "grocery/shelf/") for name in names[1 : 1 + OF_PRODUCT]
    ]
    shop = [name for name in all_names(data) if name.startswith("grocery/catalogue/")]
    products = [PurePosixPath(name).parent.name for name in shelf]
    products += [PurePosixPath(name).stem for name in shop]
    vectors = subject_vectors(data, shelf + shop)
    return vectors, np.array(products), np.arange(len(products)) >= len(shelf)


def garments(data: Path) -> Floats:
    """Give vectors of different garments."""
    kinds = by_folder(data, "garments/")
    return subject_vectors(data, [name for names in kinds for name in names[:OF_KIND]])


def judged(background: Background, queries: Floats, stored: Floats) -> Floats:
    """Give the closeness of every query to everything stored, [queries, stored]."""
    near = background.similarities(queries)[:, None]
    values: Floats = closeness(queries @ stored.T, near)  # type: ignore[arg-type,assignment]
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    options = parser.parse_args()
    background = make_background(options.data)
    vectors, products, is_shop = groceries(options.data)
    values = judged(background, vectors[~is_shop], vectors)
    different = products[~is_shop][:, None] != products[None, :]
    clothes = garments(options.data)
    among_clothes = judged(background, clothes, clothes)
    np.fill_diagonal(among_clothes, -1.0)
    tails = [
        Tail.of(np.where(different, values, -1.0), np.arange(len(values))),
        Tail.of(among_clothes, np.arange(len(clothes))),
    ]
    about = "pictures of different grocery products, and of different garments of all kinds"
    write_table(MODEL, tails, about, VERSION)
    print("\n".join(thresholds("product", MODEL, VERSION)))  # noqa: T201
    calibration = Calibrations.load([BUILT_IN_TABLES]).of(ModelVersion("product", MODEL, VERSION))
    in_shop, same = values[:, is_shop], ~different[:, is_shop]
    for label, sample in (
        ("shelf photo and catalogue picture, same product", in_shop[same]),
        ("another shelf photo of the product, the nearest", best_other(values, ~different)),
        ("catalogue pictures of others, the nearest", np.where(same, -1, in_shop).max(axis=1)),
        ("different garments, the nearest", among_clothes.max(axis=1)),
    ):
        at = np.quantile(sample, QUANTILES)
        scores = ", ".join(f"{calibration.score(float(value)):.2f}" for value in at)
        raw = ", ".join(f"{value:.2f}" for value in at)
        print(f"{label}: closeness {raw}; score {scores} (quantiles {QUANTILES})")  # noqa: T201


def best_other(values: Floats, same: npt.NDArray[np.bool_]) -> Floats:
    """Give each query's closeness to the nearest other photo of its product."""
    others = same.copy()
    np.fill_diagonal(others, val=False)
    best: Floats = np.where(others, values, -1.0).max(axis=1)
    return best


if __name__ == "__main__":
    main()
