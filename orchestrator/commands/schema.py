"""``depthsweep schema``: the JSON Schema of a sweep file, for editors."""

from __future__ import annotations

import json

import click

from sweeps.declaration.entries.sweep_spec import json_schema


@click.command("schema")
def command() -> int:
    """Print the JSON Schema of a sweep file.

    Save it beside your sweeps and begin them with `# yaml-language-server: $schema=FILE`.
    """
    click.echo(json.dumps(json_schema(), indent=1))
    return 0
