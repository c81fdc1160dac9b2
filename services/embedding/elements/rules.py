"""Thresholds of the geometric verification of elements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Rules:
    """Limits and thresholds of the verification."""

    max_localized: int = 40
    """Maximum elements that are localized; the negative of an element counts separately. Localizing
    more than 30 finds no further appearances."""
    similarity_weight: float = 10.0
    """Weight of the regional similarity in the priority for localization, relative to the weight of
    matches that agree in scale and rotation."""
    max_matches: int = 1200
    """Maximum matches of an element that are used, best first."""
    max_proposals: int = 120
    """Maximum matches of an element that propose a pose, best first; all matches vote."""
    max_refined: int = 2
    """Maximum proposals that are refined of each ranking, the loose and the strict."""
    scale_tolerance: float = float(np.log(1.8))
    """Maximum difference of an inlier's log scale from the pose's."""
    angle_tolerance: float = float(np.deg2rad(40))
    """Maximum difference of an inlier's rotation from the pose's, in radians."""
    tolerances: tuple[float, float, float] = (0.10, 0.05, 0.035)
    """Maximum errors of an inlier, as shares of the element's long side: in the loose vote, in the
    first refit and in the second refit. The strict vote uses the last."""
    min_inliers: int = 4
    """Minimum inliers of a pose."""
    max_anisotropy: float = 2.5
    """Maximum ratio of the larger singular value of a pose to the smaller."""
    min_spread: float = 0.05
    """Minimum spread of the inliers, as a ratio to that of features spread evenly over the element.
    """
    scale_range: tuple[float, float] = (0.05, 8.0)
    """Minimum and maximum scale of a pose, from the element's working image to the query's."""
    max_instances: int = 8
    """Maximum appearances of an element."""
    instance_share: float = 0.35
    """Minimum weight of a further instance, as a share of the first instance's weight."""
    min_closeness: float = 0.0
    """Lower bound of the closeness of a shape; that of a landmark is at most 0."""
    instance_closeness: float = 0.6
    """Minimum closeness of a further outline, as a share of the first outline's closeness."""
