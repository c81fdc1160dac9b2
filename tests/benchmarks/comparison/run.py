"""Measure the verdicts of CompareImages on edited copies and on nearest non-copies.

    python -m tests.benchmarks.comparison.run [--originals 20] [--nearest 600]

Compares pairs that were not used in calibration, through the whole suite and its public contract,
and prints a Markdown report.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from imagesearch.client import Client, CompareImagesResponse, Verdict
from imagesearch_services.models.common.pictures import data_folder, random_source
from imagesearch_services.models.comparison.pairs import FOLDER, NEAREST, RANDOM, Pair, choose
from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports
from tests.triton_server import prepared_models

REPORT_INTERVAL = 100
"""Number of pairs between progress reports."""
ALLOWED = 0.005
"""Maximum share of nearest non-copies above the threshold of a single measure."""

QUARTER_TURNS = {
    Image.Transpose.ROTATE_90: "rotated_270",  # Pillow turns counter-clockwise
    Image.Transpose.ROTATE_180: "rotated_180",
    Image.Transpose.ROTATE_270: "rotated_90",
}
EDIT_NAMES = {
    "flip_horizontal": "flipped_horizontally",
    "flip_vertical": "flipped_vertically",
    "crop_80": "cropped",
    "crop_50": "cropped",
    "crop_20": "cropped",
    "rotate_small_cropped": "rotated_",
    "rotate_small_whole": "rotated_",
    "greyscale": "greyscale",
    "saturation_hue": "recoloured",
    "colour_filter": "recoloured",
    "brightness_contrast": "brightness_changed",
    "aspect": "aspect_changed",
    "perspective": "perspective_changed",
    "warp": "warped",
    "blur": "blurred",
    "motion_blur": "blurred",
    "pixelation": "blurred",
    "noise": "noisy",
    "text": "overlaid",
    "emoji": "overlaid",
    "watermark": "overlaid",
    "frame": "framed",
    "caption": "framed",
    "pasted": "embedded",
    "screenshot_augly": "embedded",
    "screenshot_phone": "embedded",
    "screenshot_desktop": "embedded",
    "jpeg_10": "re_encoded",
}
"""Name or prefix of the reported edit, by kind of copy; quarter turns depend on the picture."""
SIDE_EFFECTS = {
    "rotate_small_cropped": ("cropped",),
    "perspective": ("scaled", "cropped"),
    "warp": ("cropped",),  # moves parts of the border out
    "saturation_hue": ("brightness_changed", "greyscale"),
    "colour_filter": ("brightness_changed",),
    "pasted": ("scaled",),
    "screenshot_augly": ("scaled",),
    "screenshot_phone": ("scaled",),
    "screenshot_desktop": ("scaled",),
}
"""Other edits that a kind of copy implies; every copy is also re-encoded."""

SINGLE_MEASURES: dict[str, Callable[[dict[str, float]], float]] = {
    "copy embedding (closeness)": lambda measures: measures["copy_closeness"],
    "inliers": lambda measures: measures["inlier_count"],
    "PDQ, best of eight orientations": lambda measures: -measures["pdq_distance_turned"],
    "pHash": lambda measures: -measures["phash_distance"],
    "SSIM of the whole pictures": lambda measures: measures["ssim"],
    "MSE of the whole pictures": lambda measures: -measures["mse"],
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a comparison."""

    pair: Pair
    answer: CompareImagesResponse
    took_ms: float

    @property
    def is_same(self) -> bool:
        return self.answer.verdict == Verdict.VERDICT_SAME_PICTURE

    @property
    def is_edit_reported(self) -> bool | None:
        """Whether the edit is reported; None if the kind has no corresponding edit."""
        expected = expected_edit(self.pair)
        if expected is None:
            return None
        return any(edit.startswith(expected) for edit in self.answer.likely_edits)

    @property
    def wrong_edits(self) -> list[str] | None:
        """Reported edits that were not made; None if the made edits are unknown."""
        expected = expected_edit(self.pair)
        if expected is None:
            return None
        made = (expected, "re_encoded", *SIDE_EFFECTS.get(self.pair.kind, ()))
        return [edit for edit in self.answer.likely_edits if not edit.startswith(made)]


def expected_edit(pair: Pair) -> str | None:
    """Return the name, or its prefix, of the edit that made the second picture."""
    if pair.kind == "rotate_90_180_270":
        name = pair.first.relative_to(data_folder()).as_posix()
        return QUARTER_TURNS[random_source(pair.kind, name).choice(list(QUARTER_TURNS))]
    return EDIT_NAMES.get(pair.kind)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--originals", type=int, default=20)
    parser.add_argument("--nearest", type=int, default=600)
    parser.add_argument("--unrelated", type=int, default=200)
    options = parser.parse_args()
    pairs = choose(
        data_folder(),
        is_test=True,
        originals=options.originals,
        nearest=options.nearest,
        unrelated=options.unrelated,
    )
    with tempfile.TemporaryDirectory(prefix="imagesearch-comparison-") as folder:
        suite = Suite.start(
            SuiteSettings(
                port=free_ports(1)[0], data_dir=Path(folder), models_dir=prepared_models()
            )
        )
        try:
            with Client(suite.target, timeout_s=120) as client:
                outcomes = list(_compared(client, list(pairs)))
        finally:
            suite.stop()
    _write_misses(outcomes)
    print("\n".join(report(outcomes)))  # noqa: T201


def report(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield the lines of a Markdown report."""
    copies = [outcome for outcome in outcomes if outcome.pair.is_copy]
    yield "| pairs | n | same | related | different |"
    yield "|---|---:|---:|---:|---:|"
    for title, group in (
        ("a picture and an edited copy of it", copies),
        ("a picture and its nearest non-copy", _of_kind(outcomes, NEAREST)),
        ("two unrelated pictures", _of_kind(outcomes, RANDOM)),
    ):
        counts = Counter(outcome.answer.verdict for outcome in group)
        shares = [
            _percent(counts[verdict], len(group))
            for verdict in (
                Verdict.VERDICT_SAME_PICTURE,
                Verdict.VERDICT_RELATED,
                Verdict.VERDICT_DIFFERENT,
            )
        ]
        yield f"| {title} | {len(group)} | {' | '.join(shares)} |"
    yield from (
        "",
        "| kind of edit | n | same | edit reported | wrong edit reported |",
        "|---|---:|---:|---:|---:|",
    )
    for kind in dict.fromkeys(outcome.pair.kind for outcome in copies):
        group = _of_kind(copies, kind)
        reported = [
            outcome.is_edit_reported for outcome in group if outcome.is_edit_reported is not None
        ]
        wrong = [bool(outcome.wrong_edits) for outcome in group if outcome.wrong_edits is not None]
        shares = [
            _percent(sum(outcome.is_same for outcome in group), len(group)),
            _percent(sum(reported), len(reported)) if reported else "",
            _percent(sum(wrong), len(wrong)) if wrong else "",
        ]
        yield f"| {kind} | {len(group)} | {' | '.join(shares)} |"
    yield from ("", "| single measure | copies found |", "|---|---:|")
    for name, measure in SINGLE_MEASURES.items():
        yield f"| {name} | {_found_by(outcomes, measure)} |"
    yield from ("", "| step | p50, ms | p95, ms |", "|---|---:|---:|")
    for step, durations in _durations(outcomes).items():
        ordered = sorted(durations)
        high = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
        yield f"| {step} | {statistics.median(ordered):.0f} | {high:.0f} |"


def _found_by(outcomes: Iterable[Outcome], measure: Callable[[dict[str, float]], float]) -> str:
    """Return the recall of copies at the threshold that a share `ALLOWED` of non-copies exceeds."""
    values: dict[bool, list[float]] = {True: [], False: []}
    for outcome in outcomes:
        if outcome.pair.kind != RANDOM:
            values[outcome.pair.is_copy].append(measure(dict(outcome.answer.measures)))
    others = sorted(values[False], reverse=True)
    threshold = others[int(ALLOWED * len(others))]
    return _percent(sum(value > threshold for value in values[True]), len(values[True]))


def _durations(outcomes: Iterable[Outcome]) -> dict[str, list[float]]:
    steps: dict[str, list[float]] = {}
    for outcome in outcomes:
        for timing in outcome.answer.timings:
            steps.setdefault(timing.step, []).append(timing.duration_ms)
        steps.setdefault("at the client", []).append(outcome.took_ms)
    return steps


def _compared(client: Client, pairs: Sequence[Pair]) -> Iterator[Outcome]:
    for count, pair in enumerate(pairs, 1):
        first, second = pair.first.read_bytes(), pair.second.read_bytes()
        began_s = time.perf_counter()
        answer = client.compare_images(image_a=first, image_b=second)
        yield Outcome(pair, answer, 1e3 * (time.perf_counter() - began_s))
        if count % REPORT_INTERVAL == 0:
            print(f"{count} of {len(pairs)}", file=sys.stderr, flush=True)  # noqa: T201


def _write_misses(outcomes: Iterable[Outcome]) -> None:
    """Write the pairs with a wrong verdict or a wrong edit to a file."""
    lines = [
        f"{outcome.pair.kind}\t{outcome.pair.first}\t{outcome.pair.second}\t{outcome.answer.score:.3f}"
        f"\t{' '.join(outcome.answer.likely_edits)}"
        for outcome in outcomes
        if outcome.is_same != outcome.pair.is_copy
        or outcome.is_edit_reported is False
        or outcome.wrong_edits
    ]
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "misses.txt").write_text("\n".join(lines) + "\n")


def _of_kind(outcomes: Iterable[Outcome], kind: str) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.pair.kind == kind]


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %" if total else "–"


if __name__ == "__main__":
    main()
