"""Make the background set and the calibration table of product search.

    python -m imagesearch_services.models.product.calibrate

Writes two files.

`services/embedding/inference/background_vectors/product@2.npy` contains vectors of garments and
packages of many kinds. Every similarity is judged relative to this background, because two
different shirts are closer than two photos of the same carton of milk.

`services/gateway/scoring/tables/product.json` contains the rate at which two different products
reach a closeness (`common.calibration_table`). It is estimated from two populations that exclude
the background: shelf photos against pictures of all other grocery products, including other flavors
of the same brand; and garments against other garments, including garments of the same kind. At each
closeness the table has the higher of both rates.

The embedding was fitted to these products (in closed form, shrunk by 0.9 towards the identity), so
the table is valid for goods of these kinds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import ModelVersion
from imagesearch_services.embedding.inference.background import BUILT_IN, Background
from imagesearch_services.gateway.scoring.calibration import (
    BUILT_IN_TABLES,
    Calibrations,
    closeness,
)
from imagesearch_services.models.common.calibration_table import (
    ComparisonTail,
    thresholds,
    write_table,
)
from imagesearch_services.models.common.pictures import all_names, data_folder
from imagesearch_services.models.product.subject_vectors import (
    MODEL,
    SPACE,
    VERSION,
    Floats,
    subject_vectors,
)

OF_KIND = 40
"""Maximum number of compared garments of each kind."""
OF_PRODUCT = 6
"""Maximum number of compared shelf photos of each product."""
BACKGROUND_OF_KIND = 25
"""Number of garments of each kind in the background set, which are not compared.

The set also has a single shelf photo of each product. The service ignores the two entries that are
most similar to a query, and these must include all pictures of the query's own product.
"""
INT8_MAX = 127
QUANTILES = (0.1, 0.5, 0.9)
"""Quantiles in the printed summary."""

Booleans = npt.NDArray[np.bool_]


def by_folder(data: Path, prefix: str) -> list[list[str]]:
    """Return the names of the pictures with a prefix, grouped by folder."""
    groups: dict[str, list[str]] = {}
    for name in all_names(data):
        if name.startswith(prefix):
            groups.setdefault(PurePosixPath(name).parent.name, []).append(name)
    return list(groups.values())


def make_background(data: Path) -> Background:
    """Write the background set and return it."""
    names = [names[0] for names in by_folder(data, "grocery/shelf/")]
    for names_of_kind in by_folder(data, "garments/"):
        names += names_of_kind[-BACKGROUND_OF_KIND:]
    vectors = subject_vectors(data, names)
    scale = INT8_MAX / np.abs(vectors).max()
    kept = np.rint(vectors * scale).astype(np.int8)
    np.save(BUILT_IN / f"{SPACE}.npy", kept)
    return Background(kept)


@dataclass(frozen=True)
class Groceries:
    """Shelf photos and catalogue pictures of products."""

    vectors: Floats
    """Unit vectors, [pictures, D]."""
    products: npt.NDArray[np.str_]
    """Name of the product on each picture."""
    is_catalogue: Booleans

    @classmethod
    def read(cls, data: Path) -> Groceries:
        """Embed the pictures."""
        groups = by_folder(data, "grocery/shelf/")
        shelf = [name for names in groups for name in names[1 : 1 + OF_PRODUCT]]
        shop = [name for name in all_names(data) if name.startswith("grocery/catalogue/")]
        products = [PurePosixPath(name).parent.name for name in shelf]
        products += [PurePosixPath(name).stem for name in shop]
        vectors = subject_vectors(data, shelf + shop)
        return cls(vectors, np.array(products), np.arange(len(products)) >= len(shelf))


def garments(data: Path) -> Floats:
    """Return the vectors of different garments, unit length [garments, D]."""
    kinds = by_folder(data, "garments/")
    return subject_vectors(data, [name for names in kinds for name in names[:OF_KIND]])


def judged(background: Background, queries: Floats, stored: Floats) -> Floats:
    """Return the closeness of every query to every stored picture, [queries, stored]."""
    near = background.similarities(queries)[:, None]
    values: Floats = closeness(queries @ stored.T, near)  # type: ignore[arg-type,assignment]
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    options = parser.parse_args()
    background = make_background(options.data)
    groceries = Groceries.read(options.data)
    shelf = ~groceries.is_catalogue
    values = judged(background, groceries.vectors[shelf], groceries.vectors)
    different = groceries.products[shelf][:, None] != groceries.products[None, :]
    clothes = garments(options.data)
    among_clothes = judged(background, clothes, clothes)
    np.fill_diagonal(among_clothes, -1.0)
    tails = [
        ComparisonTail.of(np.where(different, values, -1.0), np.arange(len(values))),
        ComparisonTail.of(among_clothes, np.arange(len(clothes))),
    ]
    about = "pictures of different grocery products, and of different garments of all kinds"
    write_table(MODEL, VERSION, tails, about, BUILT_IN_TABLES)
    print("\n".join(thresholds("product", MODEL, VERSION)))
    print("\n".join(summary(values, ~different, groceries.is_catalogue, among_clothes)))


def summary(
    values: Floats, is_same: Booleans, is_catalogue: Booleans, among_clothes: Floats
) -> Iterator[str]:
    """Yield a line with quantiles of closeness and score for each population."""
    calibration = Calibrations.load([BUILT_IN_TABLES]).of(ModelVersion("product", MODEL, VERSION))
    to_catalogue, is_own = values[:, is_catalogue], is_same[:, is_catalogue]
    for label, sample in (
        ("shelf photo and catalogue picture, same product", to_catalogue[is_own]),
        ("nearest other shelf photo of the same product", nearest_other(values, is_same)),
        (
            "nearest catalogue picture of another product",
            np.where(is_own, -1, to_catalogue).max(axis=1),
        ),
        ("nearest other garment", among_clothes.max(axis=1)),
    ):
        at = np.quantile(sample, QUANTILES)
        scores = ", ".join(f"{calibration.score(float(value)):.2f}" for value in at)
        raw = ", ".join(f"{value:.2f}" for value in at)
        yield f"{label}: closeness {raw}; score {scores} (quantiles {QUANTILES})"


def nearest_other(values: Floats, is_same: Booleans) -> Floats:
    """Return each query's closeness to the nearest other picture of its product."""
    others = is_same.copy()
    np.fill_diagonal(others, val=False)
    best: Floats = np.where(others, values, -1.0).max(axis=1)
    return best


if __name__ == "__main__":
    main()
