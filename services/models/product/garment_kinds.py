"""The kinds of garment that the attribute heads distinguish, with their sleeves and categories."""

from __future__ import annotations

KINDS = (
    "dress",
    "hat",
    "longsleeve",
    "outwear",
    "pants",
    "shirt",
    "shoes",
    "shorts",
    "skirt",
    "t-shirt",
)
SLEEVES = ("short", "long")
SLEEVE_OF_KIND = {"t-shirt": 0, "longsleeve": 1}
CATEGORY_OF_KIND = {
    "dress": "DRESS",
    "hat": "ACCESSORIES",
    "longsleeve": "TOPS",
    "outwear": "TOPS",
    "pants": "BOTTOMS",
    "shirt": "TOPS",
    "shoes": "SHOES",
    "shorts": "BOTTOMS",
    "skirt": "BOTTOMS",
    "t-shirt": "TOPS",
}
