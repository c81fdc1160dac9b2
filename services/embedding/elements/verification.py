"""Which stored elements appear in a query, and where.

Every pair of a query's feature and an element's that is nearer than what means nothing votes for a
similarity; those that agree are refitted to an affine map, which must make sense. What one instance
explains is taken away before the next is looked for.

Elements of two colors are looked for by their shape as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.elements.features import (
    Keypoints,
    QueryFeatures,
    StoredElement,
    may_be_inverted,
)
from imagesearch_services.embedding.elements.matching import Gallery, Matches, match
from imagesearch_services.embedding.elements.shapes import Shape, compared, placed
from imagesearch_services.embedding.elements.vocabulary import Vocabulary

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MANY_INLIERS = 6
"""From so many on an affine map is fitted, a similarity to fewer."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as an appearance."""

    max_looked_for: int = 40
    """Elements whose places are looked for, a negative counted as another one: with more than 30
    nothing more is found."""
    likeness_weight: float = 10.0
    """Of the likeness of regions beside the weights of matches that agree, when these are chosen.
    """
    max_matches: int = 1200
    """Of an element, the nearest."""
    max_proposals: int = 120
    """Matches of an element, the nearest, that propose how it was moved; all vote."""
    refitted: int = 2
    """Proposals that are refitted, of those judged loosely and of those judged strictly."""
    scale_tolerance: float = float(np.log(1.8))
    angle_tolerance: float = float(np.deg2rad(40))
    tolerances: tuple[float, float, float] = (0.10, 0.05, 0.035)
    """How far from its place a match may lie, as a share of the element's long side: in the vote,
    and in each refit."""
    min_inliers: int = 4
    max_anisotropy: float = 2.5
    min_spread: float = 0.05
    """Of the inliers, against features spread evenly over the element."""
    scale_range: tuple[float, float] = (0.05, 8.0)
    max_instances: int = 8
    instance_share: float = 0.35
    """Evidence that a further instance must have, against the first."""
    min_closeness: float = 0.0
    """Of a shape: landmarks are no nearer."""
    instance_closeness: float = 0.6
    """Closeness that a further place of a shape must have, against the first."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One appearance of an element."""

    corners: Doubles
    """Of the element in the query's working size, clockwise from its own top left, [4, 2]."""
    inlier_count: int
    weight: float
    """How much nearer than chance its matches are, added up."""
    spread: float
    """Of the matches over the element, against features spread evenly over all of it."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A place where an element's shape is seen."""

    corners: Doubles
    """As of an instance."""
    closeness: float


@dataclass(frozen=True, slots=True)
class Verified:
    """An element that appears, by its features or by its shape."""

    row: int
    """Of the candidates."""
    instances: Sequence[Instance]
    """Best first."""
    outlines: Sequence[Outline] = ()
    """Best first."""


def verify(
    query: QueryFeatures,
    elements: Sequence[StoredElement],
    vocabulary: Vocabulary,
    rules: Rules,
    likeness: Sequence[float] = (),
) -> list[Verified]:
    """Look for elements in a query.

    Elements with few features are looked for as negatives, too. Places are looked for where it
    pays: where most agrees, or regions are alike.

    Args:
        query: what was seen.
        elements: that may appear.
        vocabulary: of both.
        rules: what counts.
        likeness: of each element to the nearest region of the query, where that is known.

    Returns:
        Those found, in the order given.
    """
    if not elements:
        return []
    gallery = Gallery.of(elements, vocabulary)
    plain = np.array([may_be_inverted(len(one.keypoints)) for one in elements], bool)
    sides = [(query, match(query, gallery, vocabulary))]
    if plain.any():
        negative = query.inverted(vocabulary)
        sides.append((negative, match(negative, gallery.only(plain), vocabulary)))
    promise = np.stack([matches.agreement for _, matches in sides])
    if likeness:
        promise += rules.likeness_weight * np.array(likeness)
    instances: dict[int, list[Instance]] = {}
    for place in np.argsort(-promise, axis=None, kind="stable")[: rules.max_looked_for].tolist():
        side, row = divmod(place, len(elements))
        seen, matches = sides[side]
        found = find_instances(seen, elements[row], matches.of(row), rules)
        if found and (row not in instances or found[0].weight > instances[row][0].weight):
            instances[row] = found
    outlines = find_outlines(query, elements, rules)
    return [
        Verified(row, instances.get(row, ()), outlines.get(row, ()))
        for row in sorted(instances.keys() | outlines.keys())
    ]


def find_outlines(
    query: QueryFeatures, elements: Sequence[StoredElement], rules: Rules
) -> dict[int, list[Outline]]:
    """Look for the elements that have a shape; give where each is, by row."""
    rows = [row for row, element in enumerate(elements) if element.shape is not None]
    stored = [element.shape for element in elements if element.shape is not None]
    if not query.shapes or not rows:
        return {}
    seen = zip(*compared(stored, query.shapes), strict=True)
    found = {
        row: _outlines(elements[row], shape, query.shapes, pairs, rules)
        for row, shape, pairs in zip(rows, stored, seen, strict=True)
    }
    return {row: outlines for row, outlines in found.items() if outlines}


def _outlines(
    element: StoredElement,
    stored: Shape,
    shapes: Sequence[Shape],
    pairs: tuple[Floats, Ints],
    rules: Rules,
) -> list[Outline]:
    """Keep the best of those that lie over each other."""
    kept: list[Outline] = []
    closeness, turns = pairs
    for place in np.argsort(-closeness, kind="stable").tolist():
        least = rules.instance_closeness * kept[0].closeness if kept else rules.min_closeness
        if closeness[place] <= least or len(kept) == rules.max_instances:
            break
        matrix = placed(stored, shapes[place], int(turns[place]))
        scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
        if not rules.scale_range[0] < scale < rules.scale_range[1]:
            continue
        if not _makes_sense(matrix, rules):
            continue
        corners = _frame(element) @ matrix[:, :2].T + matrix[:, 2]
        reach = scale * max(element.width, element.height) / 2
        middle = corners.mean(axis=0)
        if all(np.linalg.norm(middle - each.corners.mean(axis=0)) > reach for each in kept):
            kept.append(Outline(corners, float(closeness[place])))
    return kept


def find_instances(
    query: QueryFeatures, element: StoredElement, matches: Matches, rules: Rules
) -> list[Instance]:
    """Find every place where an element appears."""
    found: list[Instance] = []
    while len(matches) >= rules.min_inliers and len(found) < rules.max_instances:
        best = _best(
            query.keypoints,
            element,
            matches.take(np.arange(min(len(matches), rules.max_matches))),
            rules,
        )
        if best is None:
            break
        instance, affine = best
        if found and instance.weight < rules.instance_share * found[0].weight:
            break
        found.append(instance)
        # What lies in its outline is explained by it.
        inverse = np.linalg.inv(affine[:, :2])
        local = (query.keypoints.points[matches.query] - affine[:, 2]) @ inverse.T
        margin = 0.05 * max(element.width, element.height)
        inside = (
            (local[:, 0] > -margin)
            & (local[:, 1] > -margin)
            & (local[:, 0] < element.width + margin)
            & (local[:, 1] < element.height + margin)
        )
        matches = matches.take(~inside)
    return found


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Matched keypoints, side by side."""

    source: Doubles
    """Where they are in the element, [n, 2]."""
    target: Doubles
    """Where they are in the query."""
    scales: Doubles
    """Logarithm of how much larger the query's are."""
    turns: Doubles
    """By how much the query's are turned, radians."""
    weights: Floats

    @classmethod
    def of(cls, query: Keypoints, stored: Keypoints, matches: Matches) -> _Pairs:
        ratios = query.sizes[matches.query] / stored.sizes[matches.element]
        turns = query.angles[matches.query] - stored.angles[matches.element]
        return cls(
            stored.points[matches.element].astype(np.float64),
            query.points[matches.query].astype(np.float64),
            np.log(ratios.astype(np.float64)),
            turns.astype(np.float64),
            matches.weights,
        )


def _best(
    query: Keypoints, element: StoredElement, matches: Matches, rules: Rules
) -> tuple[Instance, Doubles] | None:
    """Vote, refit the best proposals, and check whether they make sense."""
    pairs = _Pairs.of(query, element.keypoints, matches)
    side = float(max(element.width, element.height))
    best: tuple[Instance, Doubles] | None = None
    proposals = {agreeing.tobytes(): agreeing for agreeing in _proposals(pairs, side, rules)}
    for agreeing in proposals.values():
        found = _refitted(pairs, agreeing, element, rules)
        if found is not None and (best is None or found[0].weight > best[0].weight):
            best = found
    return best


def _refitted(
    pairs: _Pairs, agreeing: Bools, element: StoredElement, rules: Rules
) -> tuple[Instance, Doubles] | None:
    """Fit what a proposal's matches say, tightening what agreeing means."""
    side = float(max(element.width, element.height))
    affine = None
    for step, tolerance in enumerate(rules.tolerances[1:]):
        if agreeing.sum() < rules.min_inliers:
            return None
        fit = _similarity_fit if step == 0 or agreeing.sum() < MANY_INLIERS else _affine_fit
        affine = fit(pairs.source[agreeing], pairs.target[agreeing])
        refitted = _agreeing(pairs, affine, tolerance * side, rules)
        if refitted is None:
            return None
        agreeing = refitted
    assert affine is not None  # noqa: S101  # narrows the type: there are refits
    inliers = _distinct(pairs, np.flatnonzero(agreeing))
    if len(inliers) < rules.min_inliers:
        return None
    spread = _spread(pairs.source[inliers], element)
    if spread < rules.min_spread or not _makes_sense(affine, rules):
        return None
    corners = _frame(element) @ affine[:, :2].T + affine[:, 2]
    return Instance(corners, len(inliers), float(pairs.weights[inliers].sum()), spread), affine


def _frame(element: StoredElement) -> Doubles:
    """Give the corners of an element, clockwise from the top left."""
    width, height = element.width, element.height
    return np.array([(0, 0), (width, 0), (width, height), (0, height)], float)


def _proposals(pairs: _Pairs, side: float, rules: Rules) -> list[Bools]:
    """Let the nearest matches propose similarities; give what agrees with the best of them.

    Each is judged loosely, as far as one match can tell, and strictly: where a pattern repeats,
    what lies one repeat off agrees loosely too, and blurs the fit.
    """
    source, target, scales, cosine, sine = (
        column.astype(np.float32)
        for column in (
            pairs.source,
            pairs.target,
            pairs.scales,
            np.cos(pairs.turns),
            np.sin(pairs.turns),
        )
    )
    proposing = slice(rules.max_proposals)
    growth = np.exp(scales[proposing])[:, None]
    cosines = growth * cosine[proposing, None]
    sines = growth * sine[proposing, None]
    across = source[None, :, 0] - source[proposing, None, 0]
    down = source[None, :, 1] - source[proposing, None, 1]
    x = target[proposing, None, 0] + cosines * across - sines * down - target[None, :, 0]
    y = target[proposing, None, 1] + sines * across + cosines * down - target[None, :, 1]
    squared = x * x + y * y
    turned = cosine[proposing, None] * cosine[None] + sine[proposing, None] * sine[None]
    alike = (np.abs(scales[proposing, None] - scales[None]) < rules.scale_tolerance) & (
        turned > np.cos(rules.angle_tolerance)
    )
    found: list[Bools] = []
    for tolerance in (rules.tolerances[0], rules.tolerances[2]):
        reach = tolerance * side * growth
        agreeing = alike & (squared < reach * reach)
        votes = agreeing @ pairs.weights
        found += [agreeing[row] for row in np.argsort(-votes, kind="stable")[: rules.refitted]]
    return found


def _agreeing(pairs: _Pairs, affine: Doubles, tolerance: float, rules: Rules) -> Bools | None:
    """Give the matches that an affine map explains; None where it mirrors or has no such size.

    The tolerance is in pixels of the element.
    """
    determinant = affine[0, 0] * affine[1, 1] - affine[0, 1] * affine[1, 0]
    scale = np.sqrt(abs(determinant))
    if determinant <= 0 or not rules.scale_range[0] < scale < rules.scale_range[1]:
        return None
    places = pairs.source @ affine[:, :2].T + affine[:, 2]
    misses = np.linalg.norm(places - pairs.target, axis=1)
    turn = np.arctan2(affine[1, 0] - affine[0, 1], affine[0, 0] + affine[1, 1])
    agreeing: Bools = (
        (misses < tolerance * scale)
        & (np.abs(pairs.scales - np.log(scale)) < rules.scale_tolerance)
        & (np.abs(_wrapped(pairs.turns - turn)) < rules.angle_tolerance)
    )
    return agreeing


def _makes_sense(affine: Doubles, rules: Rules) -> bool:
    high, low = np.linalg.svd(affine[:, :2], compute_uv=False)
    return bool(high <= rules.max_anisotropy * low)


def _spread(places: Doubles, element: StoredElement) -> float:
    area = np.sqrt(max(np.linalg.det(np.cov(places.T)), 0.0))
    return float(area / (element.width * element.height / 12))


def _distinct(pairs: _Pairs, rows: Ints) -> Ints:
    """Keep one match, the best, for each place in either picture: repeats are no new evidence."""
    _, first = np.unique(np.rint(pairs.target[rows] / 2), axis=0, return_index=True)
    rows = rows[np.sort(first)]
    _, first = np.unique(np.rint(pairs.source[rows] / 3), axis=0, return_index=True)
    distinct: Ints = rows[np.sort(first)]
    return distinct


def _similarity_fit(source: Doubles, target: Doubles) -> Doubles:
    from_middle, to_middle = source.mean(axis=0), target.mean(axis=0)
    a, b = source - from_middle, target - to_middle
    power = max(float((a * a).sum()), 1e-9)
    cosine = float((a * b).sum()) / power
    sine = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / power
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, to_middle - linear @ from_middle])


def _affine_fit(source: Doubles, target: Doubles) -> Doubles:
    design = np.column_stack([source, np.ones(len(source))])
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    return np.ascontiguousarray(solution.T)


def _wrapped(angles: Doubles) -> Doubles:
    """Bring angles into -π … π."""
    return (angles + np.pi) % (2 * np.pi) - np.pi
