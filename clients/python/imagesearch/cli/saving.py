"""Options that save annotated pictures and HTML pages."""
# ruff: noqa: PLC0415  # imported by the commands that use it

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
"""Media type of an annotated picture, by the extension of its file."""


def check_folder(
    ctx: click.Context,  # noqa: ARG001
    parameter: click.Parameter,  # noqa: ARG001
    path: Path | None,
) -> Path | None:
    """Reject standard output, and files in a folder that does not exist, before any call."""
    if path is not None and str(path) == "-":
        raise click.BadParameter("must be a file: standard output is used for the answers")
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"the folder {path.parent} does not exist")
    return path


def check_picture_file(
    ctx: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    """Check the folder, and reject a file whose extension is not that of a supported format."""
    if path is not None and path.suffix.lower() not in MEDIA_TYPES:
        raise click.BadParameter(f"{path} must end in {', '.join(MEDIA_TYPES)}")
    return check_folder(ctx, parameter, path)


def save_option(command: Command) -> Command:
    """Add the option --save, which writes an annotated picture."""
    return click.option(
        "--save",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        callback=check_picture_file,
        metavar="FILE",
        help="Save the picture with its boxes drawn: .png, .jpg or .webp.",
    )(command)


def html_option(command: Command) -> Command:
    """Add the option --html, which writes a page with the answers."""
    return click.option(
        "--html",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        callback=check_folder,
        metavar="FILE",
        help="Save a self-contained HTML page of the results.",
    )(command)


def refuse_to_replace(inputs: Iterable[str], *outputs: Path | None) -> None:
    """Raise a usage error if an output would replace an input or another output.

    Args:
        inputs: files to read; - is standard input.
        outputs: files to write; None: no file.
    """
    paths = [path for path in outputs if path is not None]
    read = [Path(file).resolve() for file in inputs if file != "-"]
    for row, path in enumerate(paths):
        if path.resolve() in read:
            raise click.UsageError(f"{path} is an input and would be replaced.")
        if path.resolve() in [other.resolve() for other in paths[:row]]:
            raise click.UsageError(f"{path} cannot be both the picture and the page.")


def annotation_options(path: Path | None, *, match_count: int = 0) -> AnnotationOptions | None:
    """Return the options of an annotated picture in the format of the file; None without a file."""
    if path is None:
        return None
    from imagesearch.client import AnnotationOptions

    return AnnotationOptions(media_type=MEDIA_TYPES[path.suffix.lower()], match_count=match_count)


def save_picture(path: Path, content: bytes) -> None:
    """Write an annotated picture. Raise an error if the suite returned no picture."""
    if not content:
        raise click.ClickException(f"{path} was not saved: the suite returned no annotated picture")
    write(path, content)


def write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise click.ClickException(f"{path}: {output.os_message(error)}") from error
    click.echo(f"Saved {path}.", err=True)


def require_report() -> None:
    """Raise a usage error if the dependencies of HTML pages are not installed."""
    try:
        import jinja2  # noqa: F401
        import PIL  # noqa: F401
    except ImportError as error:
        raise click.UsageError("--html needs `pip install 'imagesearch[report]'`.") from error
