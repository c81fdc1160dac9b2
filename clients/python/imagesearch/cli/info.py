"""`imagesearch info`: version and limits of the service."""

from __future__ import annotations

import click

from imagesearch.cli import output
from imagesearch.cli.connection import connected, connection_options


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@connection_options()
def info(as_json: bool) -> None:
    """Show the version of the service and its limits."""
    with connected() as client:
        answer = client.get_server_info()
    if as_json:
        output.print_json(answer)
        return
    click.echo(f"imagesearch {answer.version}")
    output.print_table(
        ("limit", "value", "unit", "of"),
        [
            (limit.name, f"{limit.value:,.10g}", limit.unit, limit.description)
            for limit in answer.limits
        ],
    )
