"""`imagesearch status`: whether the suite is serving."""
# ruff: noqa: PLC0415  # imported by the commands that use it

from __future__ import annotations

import time

import click

from imagesearch.cli import output
from imagesearch.cli.connection import connected, connection_options, explain


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@connection_options()
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show whether the suite is serving; exit status 1 if not."""
    from imagesearch.client import ImageSearchError

    with connected() as client:
        reason = ""
        libraries = []
        started_s = time.perf_counter()
        try:
            state = "SERVING" if client.is_serving() else "NOT_SERVING"
            latency_ms = (time.perf_counter() - started_s) * 1e3
            libraries = list(client.libraries())
        except ImageSearchError as error:
            reason = explain(error, client.target)
            state = "NOT_SERVING" if error.reason else "UNREACHABLE"
            latency_ms = (time.perf_counter() - started_s) * 1e3
        image_count = sum(library.image_count for library in libraries)
        if as_json:
            output.print_json(
                {
                    "target": client.target,
                    "status": state,
                    "reason": reason,
                    "latencyMs": round(latency_ms, 1),
                    "libraryCount": len(libraries),
                    "imageCount": image_count,
                }
            )
        else:
            click.echo(f"{client.target}: {state} ({latency_ms:.0f} ms)")
            if not reason:
                click.echo(f"{len(libraries):,} libraries, {image_count:,} images")
        if reason:
            click.echo(f"Error: {reason}", err=True)
    ctx.exit(0 if state == "SERVING" else 1)
