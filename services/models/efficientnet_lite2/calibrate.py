"""Make the Gateway's calibration table for the semantic model.

    python -m imagesearch_services.models.efficientnet_lite2.calibrate

Writes `services/gateway/scoring/tables/efficientnet_lite2.json` from comparisons of pictures of
different kinds of garment and of different products, and prints the thresholds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path, PurePosixPath

import numpy as np

from imagesearch_services.gateway.scoring.calibration import BUILT_IN_TABLES
from imagesearch_services.models.common.calibration_table import (
    ComparisonTail,
    thresholds,
    write_table,
)
from imagesearch_services.models.common.embedder import SEMANTIC_MODEL, VERSION, embed_files
from imagesearch_services.models.common.pictures import CACHE, all_names, data_folder

MAX_OF_KIND = 40
"""Maximum number of pictures of each kind of garment and of each product."""


def tail(data: Path) -> ComparisonTail:
    """Return the tail of comparisons between different kinds of garment or different products."""
    by_kind: dict[PurePosixPath, list[str]] = {}
    for name in all_names(data):
        kind = PurePosixPath(name).parent
        if name.startswith(("garments/", "grocery/shelf/")):
            by_kind.setdefault(kind, []).append(name)
    names = [name for of_kind in by_kind.values() for name in of_kind[:MAX_OF_KIND]]
    kinds = np.array([str(PurePosixPath(name).parent) for name in names])
    cache = CACHE / "copies" / "kinds-efficientnet_lite2.npz"
    vectors = embed_files(SEMANTIC_MODEL, data, names, cache)
    similarities = vectors @ vectors.T
    alike = np.triu(kinds[:, None] == kinds[None, :], 1)
    quantiles = np.quantile(similarities[alike], [0.1, 0.5, 0.9])
    print(f"similarity within a kind, quantiles .1 .5 .9: {quantiles}", file=sys.stderr)
    unlike = np.where(kinds[:, None] != kinds[None, :], similarities, -1.0)
    return ComparisonTail.of(unlike, np.arange(len(unlike)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--thresholds-only", action="store_true", help="print, do not calibrate")
    options = parser.parse_args()
    if not options.thresholds_only:
        write_table(
            SEMANTIC_MODEL,
            VERSION,
            [tail(options.data)],
            "pictures of different kinds of garment or of different products",
            BUILT_IN_TABLES,
        )
    print("\n".join(thresholds("semantic", SEMANTIC_MODEL, VERSION)))


if __name__ == "__main__":
    main()
