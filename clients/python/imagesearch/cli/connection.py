"""Where the suite is, and what its errors mean to somebody at a terminal."""
# ruff: noqa: PLC0415  # the client waits for the command that needs it

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
    "LIBRARY_NOT_FOUND": "`imagesearch library list` shows those that there are",
    "LIBRARY_ALREADY_EXISTS": "take another name, or delete it first",
    "LIBRARY_FULL": "delete images, or raise it: `imagesearch library update NAME --capacity N`",
    "IMAGE_NOT_FOUND": "`imagesearch image list LIBRARY` shows those that there are",
    "IMAGE_ALREADY_EXISTS": "--overwrite replaces it",
    "TAG_TYPE_MISMATCH": "quotes make a value a string: --tag 'NAME=\"1\"'; 1.0 is a float",
    "MODEL_SERVER_UNAVAILABLE": "nothing was stored; `imagesearch status` tells when it is back",
    "EMBEDDING_UNAVAILABLE": "nothing was stored; `imagesearch status` tells when it is back",
    "CATALOG_UNAVAILABLE": "`imagesearch status` tells when it is back",
    "STORAGE_UNAVAILABLE": "`imagesearch status` tells when it is back",
    "BLOB_STORE_UNAVAILABLE": "everything but small pictures works without it",
    "THUMBNAIL_NOT_FOUND": "add the picture again, with --overwrite, to keep a small one",
    "DEADLINE_EXCEEDED": "--timeout SECONDS allows more time",
    "NOT_IMPLEMENTED": "this suite does not offer it yet",
    "UNAUTHENTICATED": "give --token or set IMAGESEARCH_TOKEN",
}
"""What to do about an error, by reason."""


@dataclass
class Connection:
    """The options of the suite's address, given before or after the command's name."""

    target: str | None = None
    timeout_s: float = 60.0
    token: str | None = None


def connection_options(*, from_environment: bool = False) -> Callable[[Command], Command]:
    """Add --target, --timeout and --token to a command."""

    def keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
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
            callback=keep,
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
                help="Longest time for one call.  [default: 60]",
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
    """Give a client of the suite; its errors end the command with one line and exit status 1."""
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
    """Say what is wrong and what to do about it, in one line."""
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
    """Explain what gRPC says by itself, where no service of ours did."""
    match error.code.name:
        case "UNAVAILABLE":
            return (
                f"nothing answers at {target}; start a suite there with `make up`,"
                " or name another with --target or IMAGESEARCH_TARGET"
            )
        case "DEADLINE_EXCEEDED":
            return f"no answer from {target} in time; {HINTS['DEADLINE_EXCEEDED']}"
        case "UNIMPLEMENTED":
            return f"{target} is no image-search gateway, or an older one"
    return error.message or error.code.name
