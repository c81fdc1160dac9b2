"""What is saved beside what is printed: drawings and pages."""
# ruff: noqa: PLC0415  # the client and the templates wait for the command that needs them

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from imagesearch.cli import output

if TYPE_CHECKING:
    from imagesearch.client import AnnotationOptions

Command = TypeVar("Command", bound=Callable[..., Any])

MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}
"""By how a drawing's file name ends."""


def check_folder(
    ctx: click.Context,  # noqa: ARG001
    parameter: click.Parameter,  # noqa: ARG001
    path: Path | None,
) -> Path | None:
    """Refuse a file in a folder that is not there, before an hour's work is lost to it.

    And -, which stands for standard output elsewhere: answers are printed there.
    """
    if path is not None and str(path) == "-":
        raise click.BadParameter("standard output is for the answers: name a file")
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"{path.parent} is no folder")
    return path


def check_drawing(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a drawing's file whose ending says no format, too."""
    if path is not None and path.suffix.lower() not in MEDIA_TYPES:
        raise click.BadParameter(f"{path} must end in {', '.join(MEDIA_TYPES)}")
    return check_folder(ctx, parameter, path)


def save_option(command: Command) -> Command:
    """Add --save: the answer as a picture."""
    return click.option(
        "--save",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        callback=check_drawing,
        metavar="FILE",
        help="Save the picture with its boxes drawn: .png, .jpg or .webp.",
    )(command)


def html_option(command: Command) -> Command:
    """Add --html: the answers as a page."""
    return click.option(
        "--html",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        callback=check_folder,
        metavar="FILE",
        help="Save a page that shows it all, in one file.",
    )(command)


def refuse_to_replace(inputs: Iterable[str], *outputs: Path | None) -> None:
    """Stop before anything is asked where a picture that is read, or the other output, would go.

    Args:
        inputs: files to read; - is standard input.
        outputs: files to write; None is none.
    """
    paths = [path for path in outputs if path is not None]
    read = [Path(file).resolve() for file in inputs if file != "-"]
    for row, path in enumerate(paths):
        if path.resolve() in read:
            raise click.UsageError(f"{path} is a picture to read: it would be replaced.")
        if path.resolve() in [other.resolve() for other in paths[:row]]:
            raise click.UsageError(f"{path} can't be both a picture and a page.")


def drawing_options(path: Path | None, *, match_count: int = 0) -> AnnotationOptions | None:
    """Ask for a drawing of the kind that the file's name ends in."""
    if path is None:
        return None
    from imagesearch.client import AnnotationOptions

    return AnnotationOptions(media_type=MEDIA_TYPES[path.suffix.lower()], match_count=match_count)


def save_drawing(path: Path, content: bytes) -> None:
    """Write a drawing, or say that there is none."""
    if not content:
        raise click.ClickException(f"{path} was not saved: the suite gave no drawing")
    write(path, content)


def write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise click.ClickException(f"{path}: {output.os_message(error)}") from error
    click.echo(f"Saved {path}.", err=True)


def require_report() -> None:
    """Say what to install where pages can't be made."""
    try:
        import jinja2  # noqa: F401
        import PIL  # noqa: F401
    except ImportError as error:
        raise click.UsageError("--html needs `pip install 'imagesearch[report]'`.") from error
