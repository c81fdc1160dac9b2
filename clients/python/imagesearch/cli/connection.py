"""The connection to the suite, and error messages for the terminal."""
# ruff: noqa: PLC0415  # imported by the commands that use it

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from imagesearch.client import Client, ImageSearchError

Command = TypeVar("Command", bound=Callable[..., Any])

HINTS = {
    "LIBRARY_NOT_FOUND": "`imagesearch library list` shows the existing libraries",
    "LIBRARY_ALREADY_EXISTS": "use another name, or delete the library first",
    "LIBRARY_FULL": "delete images, or run `imagesearch library update NAME --capacity N`",
    "IMAGE_NOT_FOUND": "`imagesearch image list LIBRARY` shows the stored images",
    "IMAGE_ALREADY_EXISTS": "--overwrite replaces the image",
    "TAG_TYPE_MISMATCH": "quotes make a value a string: --tag 'NAME=\"1\"'; 1.0 is a float",
    "MODEL_SERVER_UNAVAILABLE": "nothing was stored; check `imagesearch status`, then retry",
    "EMBEDDING_UNAVAILABLE": "nothing was stored; check `imagesearch status`, then retry",
    "CATALOG_UNAVAILABLE": "check `imagesearch status`, then retry",
    "STORAGE_UNAVAILABLE": "check `imagesearch status`, then retry",
    "BLOB_STORE_UNAVAILABLE": "only thumbnails are affected; retry later",
    "THUMBNAIL_NOT_FOUND": "add the picture again with --overwrite to store its thumbnail",
    "DEADLINE_EXCEEDED": "--timeout SECONDS sets a longer deadline",
    "NOT_IMPLEMENTED": "this version of the suite does not support it",
    "UNAUTHENTICATED": "pass --token or set IMAGESEARCH_TOKEN",
}
"""Advice for the user, by the reason of the error."""


@dataclass
class Connection:
    """Connection options, which are accepted before and after the subcommand."""

    target: str | None = None
    timeout_s: float = 60.0
    token: str | None = None


def connection_options(*, from_environment: bool = False) -> Callable[[Command], Command]:
    """Add --target, --timeout and --token to a command."""

    def store(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        connection = ctx.ensure_object(Connection)
        if value is not None and parameter.name is not None:
            setattr(connection, parameter.name, value)

    def option(flag: str, name: str, envvar: str, **kwargs: Any) -> Callable[[Command], Command]:
        return click.option(
            flag,
            name,
            envvar=envvar if from_environment else None,
            show_envvar=from_environment,
            expose_value=False,
            callback=store,
            **kwargs,
        )

    def decorate(command: Command) -> Command:
        for add in (
            option("--token", "token", "IMAGESEARCH_TOKEN", metavar="TOKEN", help="Access token."),
            option(
                "--timeout",
                "timeout_s",
                "IMAGESEARCH_TIMEOUT_S",
                type=click.FloatRange(min=0, min_open=True),
                metavar="SECONDS",
                help="Deadline of a call.  [default: 60]",
            ),
            option(
                "--target",
                "target",
                "IMAGESEARCH_TARGET",
                metavar="HOST:PORT",
                help="Address of the suite.  [default: 127.0.0.1:50051]",
            ),
        ):
            command = add(command)
        return command

    return decorate


@contextlib.contextmanager
def connected() -> Iterator[Client]:
    """Open a client. If a call fails, the command prints one line and exits with status 1."""
    from imagesearch.client import Client, ImageSearchError

    ctx = click.get_current_context()
    connection = ctx.ensure_object(Connection)
    with Client(
        connection.target, timeout_s=connection.timeout_s, token=connection.token
    ) as client:
        try:
            yield client
        except ImageSearchError as error:
            raise click.ClickException(explain(error, client.target)) from error
        except KeyboardInterrupt:
            click.echo("\nStopped.", err=True)
            ctx.exit(130)


def explain(error: ImageSearchError, target: str) -> str:
    """Return the error message with advice, in one line."""
    if not error.reason:
        return _explain_transport(error, target)
    hint = HINTS.get(error.reason, "")
    if error.reason == "OVERLOADED":
        hint = f"try again in {error.retry_after_s or 1:.0f} s"
    fields = [
        f"{violation.field}: {violation.description}"
        for violation in error.field_violations
        if violation.description not in error.message
    ]
    parts = [f"{error.message} [{error.reason}]", *fields, hint]
    return "; ".join(part for part in parts if part)


def _explain_transport(error: ImageSearchError, target: str) -> str:
    """Explain an error of gRPC itself, which has no reason."""
    match error.code.name:
        case "UNAVAILABLE":
            return (
                f"no suite answers at {target}; start it with `make up`, or set another address"
                " with --target or IMAGESEARCH_TARGET"
            )
        case "DEADLINE_EXCEEDED":
            return f"no answer from {target} in time; {HINTS['DEADLINE_EXCEEDED']}"
        case "UNIMPLEMENTED":
            return f"{target} is not an image-search Gateway, or is an older version"
    return error.message or error.code.name
