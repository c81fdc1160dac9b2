"""Measure the recall of products by the suite, with and without subject detection.

    python -m tests.benchmarks.products.retrieval

Groceries: 55 catalogue pictures are stored, and shelf photos are the queries. Garments: photos of
all kinds are stored, and other photos are the queries; a match of the same kind is correct. All
calls use the public contract and the released models. The embedding was trained on these groceries,
but on none of these garments. `imagesearch_services.models.product.train_embedding` measures
products that were not used in training, by five-fold cross-validation.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from imagesearch.client import Client, LibraryType, request_builders
from imagesearch_services.models.common.pictures import all_names, data_folder
from imagesearch_services.models.product.splits import embedding_split
from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports
from tests.triton_server import prepared_models

BATCH = 20
SHELF_PHOTOS_PER_PRODUCT = 6
STORED_PER_KIND = 14
"""Together with `QUERIES_PER_KIND`, the number of held-out photos of the rarest kind."""
QUERIES_PER_KIND = 10
DEPTHS = (1, 5, 10)
"""Numbers of results at which the recall of groceries is measured."""


def folder_of(name: str) -> str:
    """Return the folder of a picture: its product or its kind of garment."""
    return PurePosixPath(name).parent.name


def from_each_folder(names: Sequence[str], start: int, count: int) -> list[str]:
    """Return `count` names of each folder, starting at index `start`."""
    by_folder: dict[str, list[str]] = {}
    for name in names:
        by_folder.setdefault(folder_of(name), []).append(name)
    return [name for group in by_folder.values() for name in group[start : start + count]]


class Shop:
    """A product library in which the entity id of a picture is its product or kind."""

    def __init__(
        self, client: Client, data: Path, name: str, goods: dict[str, str], *, detect: bool
    ) -> None:
        """Create the library and store the goods.

        Args:
            client: Client of the suite.
            data: Folder of the data set.
            name: Id of the library.
            goods: Product or kind of each picture, by name of the picture.
            detect: Whether subjects are detected.
        """
        self._client = client
        self._data = data
        self._detect = detect
        library_type = LibraryType.LIBRARY_TYPE_PRODUCT
        self._parent = client.create_library(library_id=name, library_type=library_type).name
        rows = list(goods.items())
        for start in range(0, len(rows), BATCH):
            batch = [
                request_builders.add_image(
                    image=(data / picture).read_bytes(),
                    entity_id=entity_id,
                    subject_detection=detect,
                )
                for picture, entity_id in rows[start : start + BATCH]
            ]
            client.batch_add_images(parent=self._parent, requests=batch)

    def ranks(self, pictures: Sequence[str]) -> list[list[str]]:
        """Search with pictures; returns the entity ids of each picture's matches, best first."""
        ranked = []
        for start in range(0, len(pictures), BATCH):
            searches = [
                request_builders.search_images(
                    image=(self._data / picture).read_bytes(),
                    subject_detection=self._detect,
                    page_size=max(DEPTHS),
                )
                for picture in pictures[start : start + BATCH]
            ]
            response = self._client.batch_search_images(parent=self._parent, requests=searches)
            ranked += [
                [match.image.entity_id for match in result.response.matches]
                for result in response.results
            ]
        return ranked


def report(client: Client, data: Path) -> None:
    """Run all searches and print the table."""
    names = all_names(data)
    shop = [name for name in names if name.startswith("grocery/catalogue/")]
    shelf = from_each_folder(
        [name for name in names if "/shelf/" in name], 0, SHELF_PHOTOS_PER_PRODUCT
    )
    held_out = set(embedding_split().garments_held_out)
    clothes = [name for name in names if name in held_out]
    stored = from_each_folder(clothes, 0, STORED_PER_KIND)
    queries = from_each_folder(clothes, STORED_PER_KIND, QUERIES_PER_KIND)
    print("| | subject detected | whole picture |\n|---|---:|---:|")  # noqa: T201
    rows: dict[str, list[str]] = {}
    for detect in (True, False):
        suffix = "detected" if detect else "whole"
        goods = {name: PurePosixPath(name).stem for name in shop}
        ranked = Shop(client, data, f"groceries-{suffix}", goods, detect=detect).ranks(shelf)
        for depth in DEPTHS:
            hits = [
                folder_of(name) in found[:depth] for name, found in zip(shelf, ranked, strict=True)
            ]
            label = f"{len(shelf)} shelf photos → {len(shop)} catalogue pictures, R@{depth}"
            rows.setdefault(label, []).append(f"{sum(hits) / len(hits):.3f}")
        kinds = {name: folder_of(name) for name in stored}
        ranked = Shop(client, data, f"garments-{suffix}", kinds, detect=detect).ranks(queries)
        precisions = [
            found[:5].count(folder_of(name)) / 5
            for name, found in zip(queries, ranked, strict=True)
        ]
        label = f"{len(queries)} garments → {len(stored)} others, precision at 5 of the kind"
        rows.setdefault(label, []).append(f"{sum(precisions) / len(precisions):.3f}")
    for label, cells in rows.items():
        print(f"| {label} | {' | '.join(cells)} |")  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagesearch-products-") as folder:
        suite = Suite.start(
            SuiteSettings(
                port=free_ports(1)[0], data_dir=Path(folder), models_dir=prepared_models()
            )
        )
        try:
            with Client(suite.target, timeout_s=300) as client:
                report(client, options.data)
        finally:
            suite.stop()


if __name__ == "__main__":
    main()
