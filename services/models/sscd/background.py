"""Make the background set of the copy descriptor: embeddings of pictures that are never stored.

    python -m imagesearch_services.models.sscd.background

Writes `services/embedding/inference/background_vectors/sscd@1.npy` from the pictures that
`copies.split` reserves for it. The file contains the embeddings with one byte per component; the
pictures cannot be reconstructed from it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from imagesearch_services.embedding.inference.background import BUILT_IN
from imagesearch_services.models.common.embedder import COPY_MODEL, VERSION, embed_files
from imagesearch_services.models.common.pictures import CACHE, all_names, data_folder
from imagesearch_services.models.copies.split import split

INT8_MAX = 127


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--output", type=Path, default=BUILT_IN / f"{COPY_MODEL}@{VERSION}.npy")
    options = parser.parse_args()
    names = split(all_names(options.data)).background
    cache = CACHE / "copies" / "background-sscd.npz"
    vectors = embed_files(COPY_MODEL, options.data, names, cache)
    scale = INT8_MAX / np.abs(vectors).max(axis=1, keepdims=True)
    np.save(options.output, np.round(vectors * scale).astype(np.int8))
    print(f"{options.output}: {len(names)} pictures")


if __name__ == "__main__":
    main()
