"""`imagesearch compare`: whether two pictures are the same, and their differences."""
# ruff: noqa: PLC0415  # imported by the commands that use it

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagesearch.cli import output, saving
from imagesearch.cli.connection import connected, connection_options
from imagesearch.cli.search import read_named

if TYPE_CHECKING:
    from imagesearch.client import CompareImagesResponse
    from imagesearch.type.v1.picture_pb2 import PictureInfo

ALIGNED_AGREEMENT = 0.5
"""Minimum pixel agreement of a true alignment; the measures of a chance alignment are not shown."""
HALF_TURN = 180
MEASURES = (
    ("copy_similarity", "copy descriptor similarity", "{:.3f}", "-1 to 1"),
    ("semantic_similarity", "semantic similarity", "{:.3f}", "-1 to 1"),
    ("phash_distance", "pHash distance", "{:.0f}", "64 bits"),
    ("pdq_distance", "PDQ distance", "{:.0f}", "256 bits"),
    ("pdq_distance_turned", "PDQ distance, best of eight orientations", "{:.0f}", "256 bits"),
    ("mse", "mean squared error", "{:.1f}", "levels of 255, squared"),
    ("psnr_db", "PSNR", "{:.1f} dB", ""),
    ("ssim", "SSIM", "{:.3f}", "-1 to 1"),
    ("inlier_count", "inlier features", "{:.0f}", ""),
    ("agreement", "pixel agreement in the overlap", "{:.3f}", "0 to 1"),
    ("aligned_ssim", "SSIM in the overlap", "{:.3f}", "-1 to 1"),
    ("shown_of_a", "share of A that B shows", "{:.3f}", "0 to 1"),
    ("shown_of_b", "share of B that A shows", "{:.3f}", "0 to 1"),
    ("rotation_degrees", "rotation, clockwise", "{:.1f}°", ""),
    ("scale", "scale", "{:.3f}", ""),
)
"""Name, label, format and range of each measure, in the order of the output."""
ALIGNMENT_MEASURES = frozenset(name for name, *_ in MEASURES[8:])


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--json", "as_json", is_flag=True, help="Print the response message.")
@click.option(
    "--save",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    callback=saving.check_folder,
    help="Save an overlay of both pictures: .png.",
)
@saving.html_option
@connection_options()
def compare(*, a: str, b: str, as_json: bool, save: Path | None, html: Path | None) -> None:
    """Compare pictures A and B; - is standard input.

    Prints whether they are the same file, an edited copy, related, or different. The listed edits
    are those that turn A into B.
    """
    if save and save.suffix.lower() != ".png":
        raise click.UsageError(f"--save writes a PNG file: {save} must end in .png.")
    if a == b == "-":
        raise click.UsageError("A and B cannot both be standard input.")
    saving.refuse_to_replace((a, b), save, html)
    if html:
        saving.require_report()
    image_a, image_b = read_named(a), read_named(b)
    with connected() as client:
        answer = client.compare_images(
            image_a=image_a, image_b=image_b, include_overlay=bool(save or html)
        )
    if html:
        from imagesearch.report import ComparedPicture, comparison_page

        page = comparison_page(
            ComparedPicture(a, image_a),
            ComparedPicture(b, image_b),
            answer,
            verdict=_verdict(answer).splitlines(),
            facts=list(_facts(answer)),
            measures=list(_measures(answer)),
        )
        saving.write(html, page.encode())
    if save:
        saving.save_picture(save, answer.overlay)
    answer.ClearField("overlay")
    if as_json:
        output.print_json(answer)
        return
    click.echo(_verdict(answer))
    output.print_table(("", "A", "B"), _facts(answer))
    output.print_table(("measure", "value", "range"), _measures(answer))


def edit_words(edit: str, measures: dict[str, float]) -> str:
    """Return a likely edit as text, with its amount if it was measured.

    >>> edit_words("rotated_270", {})
    'rotated by 90° counter-clockwise'
    >>> edit_words("cropped", {"shown_of_a": 0.25, "shown_of_b": 1.0})
    'cropped (25 % kept)'
    """
    if edit.startswith("rotated_"):
        return f"rotated by {_turn(int(edit.removeprefix('rotated_')))}"
    words = edit.replace("_", " ")
    shown = [measures.get(name, 1.0) for name in ("shown_of_a", "shown_of_b")]
    amounts = {
        "cropped": f"{100 * min(shown):.0f} % kept",
        "embedded": f"{100 * shown[1]:.0f} % of B",
        "scaled": f"to {100 * measures.get('scale', 1.0):.0f} %",
    }
    return f"{words} ({amounts[edit]})" if edit in amounts else words


def _turn(degrees: int) -> str:
    if degrees == HALF_TURN:
        return "180°"
    if degrees > HALF_TURN:
        return f"{360 - degrees}° counter-clockwise"
    return f"{degrees}° clockwise"


def _verdict(answer: CompareImagesResponse) -> str:
    from imagesearch.client import Verdict

    if answer.verdict == Verdict.VERDICT_IDENTICAL_FILE:
        return "The same file."
    if answer.verdict == Verdict.VERDICT_SAME_PICTURE:
        measures = dict(answer.measures)
        edits = ", ".join(edit_words(edit, measures) for edit in answer.likely_edits)
        sentence = f"The same picture: {edits}."
    elif answer.verdict == Verdict.VERDICT_RELATED:
        sentence = "Related, but not the same picture."
    else:
        sentence = "Different pictures."
    rate = answer.false_positive_rate
    rate_text = f"{rate:.1g}" if rate >= 1e-4 else "less than 0.0001"  # noqa: PLR2004
    return (
        f"{sentence}\nScore {answer.score:.3f};"
        f" false-positive rate of different pictures: {rate_text}."
    )


def _facts(answer: CompareImagesResponse) -> Iterator[tuple[str, str, str]]:
    for name in ("size", "type", "bytes", "sharpness"):
        yield name, _fact(answer.info_a, name), _fact(answer.info_b, name)


def _fact(info: PictureInfo, name: str) -> str:
    match name:
        case "size":
            return f"{info.width}x{info.height}"
        case "type":
            return info.media_type
        case "bytes":
            return f"{info.size_bytes:,}"
    return f"{info.sharpness:.0f}"


def _measures(answer: CompareImagesResponse) -> Iterator[tuple[str, str, str]]:
    measures = dict(answer.measures)
    is_aligned = measures.get("agreement", 0.0) >= ALIGNED_AGREEMENT
    for name, label, form, scale in MEASURES:
        if name in measures and (is_aligned or name not in ALIGNMENT_MEASURES):
            yield label, form.format(measures[name]), scale
