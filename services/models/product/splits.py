"""The training and held-out pictures of the models of product search."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class ParserSplit:
    """Pictures that are excluded from the training of the subject parser."""

    street: list[str]
    """Numbers of the held-out street photos."""
    groceries: list[str]
    """Names of the held-out products."""
    garments: list[str]
    """Held-out garment photos, relative to the data folder."""


@dataclass(frozen=True)
class EmbeddingSplit:
    """Folds of products, and held-out garments, of the product embedding."""

    folds: list[list[str]]
    """Names of the products of each fold of cross-validation."""
    garments_held_out: list[str]
    """Garment photos excluded from the training of the heads, relative to the data folder."""


def parser_split() -> ParserSplit:
    return ParserSplit(**json.loads((FOLDER / "parser_split.json").read_text()))


def embedding_split() -> EmbeddingSplit:
    return EmbeddingSplit(**json.loads((FOLDER / "embedding_split.json").read_text()))
