"""How well are two pictures judged: edited copies, and pictures with the nearest that is none?

    python -m tests.benchmarks.comparison.run [--originals 20] [--nearest 600]

Through the whole suite and its public contract, on pairs that the calibration has not seen; prints
a Markdown report.
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

TOLD_EVERY = 100
ALLOWED = 0.005
"""Share of pictures with their nearest non-copy that one measure alone may take for copies."""

QUARTERS = {
    Image.Transpose.ROTATE_90: "rotated_270",  # Pillow turns counter-clockwise
    Image.Transpose.ROTATE_180: "rotated_180",
    Image.Transpose.ROTATE_270: "rotated_90",
}
NAMED = {
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
"""Kind of copy → how its edit is named, or begins; turns by quarters depend on the picture."""
BESIDES = {
    "rotate_small_cropped": ("cropped",),
    "perspective": ("scaled", "cropped"),
    "warp": ("cropped",),  # parts of the border are moved out
    "saturation_hue": ("brightness_changed", "greyscale"),
    "colour_filter": ("brightness_changed",),
    "pasted": ("scaled",),
    "screenshot_augly": ("scaled",),
    "screenshot_phone": ("scaled",),
    "screenshot_desktop": ("scaled",),
}
"""Kind of copy → what else its edit does; any copy is encoded anew."""

ALONE: dict[str, Callable[[dict[str, float]], float]] = {
    "copy embedding (closeness)": lambda of: of["copy_closeness"],
    "features that agree": lambda of: of["inlier_count"],
    "PDQ, best of eight orientations": lambda of: -of["pdq_distance_turned"],
    "pHash": lambda of: -of["phash_distance"],
    "SSIM of the whole pictures": lambda of: of["ssim"],
    "MSE of the whole pictures": lambda of: -of["mse"],
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one pair."""

    pair: Pair
    answer: CompareImagesResponse
    took_ms: float

    @property
    def is_same(self) -> bool:
        return self.answer.verdict == Verdict.VERDICT_SAME_PICTURE

    @property
    def is_named(self) -> bool | None:
        """Whether its edit is named; None where the kind has no name of its own."""
        expected = expected_edit(self.pair)
        if expected is None:
            return None
        return any(edit.startswith(expected) for edit in self.answer.likely_edits)

    @property
    def invented(self) -> list[str] | None:
        """Edits that are named without having been made; None where that is not known."""
        expected = expected_edit(self.pair)
        if expected is None:
            return None
        made = (expected, "re_encoded", *BESIDES.get(self.pair.kind, ()))
        return [edit for edit in self.answer.likely_edits if not edit.startswith(made)]


def expected_edit(pair: Pair) -> str | None:
    """Give how the edit that made the second picture is named, or begins."""
    if pair.kind == "rotate_90_180_270":
        name = pair.first.relative_to(data_folder()).as_posix()
        return QUARTERS[random_source(pair.kind, name).choice(list(QUARTERS))]
    return NAMED.get(pair.kind)


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
    _note_misses(outcomes)
    print("\n".join(report(outcomes)))  # noqa: T201


def report(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Write everything as Markdown."""
    copies = [each for each in outcomes if each.pair.is_copy]
    yield "| pairs | n | same | related | different |"
    yield "|---|---:|---:|---:|---:|"
    for title, of in (
        ("a picture and an edited copy of it", copies),
        ("a picture and its nearest non-copy", _of_kind(outcomes, NEAREST)),
        ("two unrelated pictures", _of_kind(outcomes, RANDOM)),
    ):
        counts = Counter(each.answer.verdict for each in of)
        shares = [
            _percent(counts[verdict], len(of))
            for verdict in (
                Verdict.VERDICT_SAME_PICTURE,
                Verdict.VERDICT_RELATED,
                Verdict.VERDICT_DIFFERENT,
            )
        ]
        yield f"| {title} | {len(of)} | {' | '.join(shares)} |"
    yield from (
        "",
        "| copy | n | same | its edit named | another named |",
        "|---|---:|---:|---:|---:|",
    )
    for kind in dict.fromkeys(each.pair.kind for each in copies):
        of = _of_kind(copies, kind)
        named = [each.is_named for each in of if each.is_named is not None]
        invented = [bool(each.invented) for each in of if each.invented is not None]
        shares = [
            _percent(sum(each.is_same for each in of), len(of)),
            _percent(sum(named), len(named)) if named else "",
            _percent(sum(invented), len(invented)) if invented else "",
        ]
        yield f"| {kind} | {len(of)} | {' | '.join(shares)} |"
    yield from ("", "| measure alone | copies found |", "|---|---:|")
    for name, measure in ALONE.items():
        yield f"| {name} | {_found_alone(outcomes, measure)} |"
    yield from ("", "| step | ms, median | ms, 95 of 100 |", "|---|---:|---:|")
    for step, durations in _durations(outcomes).items():
        ordered = sorted(durations)
        high = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
        yield f"| {step} | {statistics.median(ordered):.0f} | {high:.0f} |"


def _found_alone(outcomes: Iterable[Outcome], measure: Callable[[dict[str, float]], float]) -> str:
    """Give the share of copies above a threshold that lets few non-copies through."""
    values: dict[bool, list[float]] = {True: [], False: []}
    for each in outcomes:
        if each.pair.kind != RANDOM:
            values[each.pair.is_copy].append(measure(dict(each.answer.measures)))
    others = sorted(values[False], reverse=True)
    threshold = others[int(ALLOWED * len(others))]
    return _percent(sum(value > threshold for value in values[True]), len(values[True]))


def _durations(outcomes: Iterable[Outcome]) -> dict[str, list[float]]:
    steps: dict[str, list[float]] = {}
    for each in outcomes:
        for timing in each.answer.timings:
            steps.setdefault(timing.step, []).append(timing.duration_ms)
        steps.setdefault("client, all", []).append(each.took_ms)
    return steps


def _compared(client: Client, pairs: Sequence[Pair]) -> Iterator[Outcome]:
    for count, pair in enumerate(pairs, 1):
        first, second = pair.first.read_bytes(), pair.second.read_bytes()
        began_s = time.perf_counter()
        answer = client.compare_images(image_a=first, image_b=second)
        yield Outcome(pair, answer, 1e3 * (time.perf_counter() - began_s))
        if count % TOLD_EVERY == 0:
            print(f"{count} of {len(pairs)}", file=sys.stderr, flush=True)  # noqa: T201


def _note_misses(outcomes: Iterable[Outcome]) -> None:
    """Note what went wrong, to be looked at."""
    lines = [
        f"{each.pair.kind}\t{each.pair.first}\t{each.pair.second}\t{each.answer.score:.3f}"
        f"\t{' '.join(each.answer.likely_edits)}"
        for each in outcomes
        if each.is_same != each.pair.is_copy or each.is_named is False or each.invented
    ]
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "misses.txt").write_text("\n".join(lines) + "\n")


def _of_kind(outcomes: Iterable[Outcome], kind: str) -> list[Outcome]:
    return [each for each in outcomes if each.pair.kind == kind]


def _percent(count: int, of: int) -> str:
    return f"{100 * count / of:.1f} %" if of else "–"


if __name__ == "__main__":
    main()
