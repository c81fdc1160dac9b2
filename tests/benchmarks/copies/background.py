"""Make the background set of the copy descriptor: embeddings of pictures that nobody stores.

    python -m tests.benchmarks.copies.background      # writes services/embedding/background_vectors

The pictures are those that `dataset.split` keeps for this and nothing else. What is written is
their embeddings, a byte a component; no picture can be made from it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from imagesearch_services.embedding.background import BUILT_IN
from tests.benchmarks.copies.dataset import CACHE, all_names, data_folder, split
from tests.benchmarks.copies.vectors import COPY_MODEL, VERSION, embed_files


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    options = parser.parse_args()
    names = split(all_names(options.data)).background
    vectors = embed_files(COPY_MODEL, options.data, names, CACHE / "background-sscd.npz")
    scale = 127 / np.abs(vectors).max(axis=1, keepdims=True)
    BUILT_IN.mkdir(exist_ok=True)
    np.save(BUILT_IN / f"{COPY_MODEL}@{VERSION}.npy", np.round(vectors * scale).astype(np.int8))


if __name__ == "__main__":
    main()
