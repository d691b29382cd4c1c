"""``depthsweep schema``: JSON Schemas, of a sweep file for editors, of answers for programs."""

from __future__ import annotations

import json

import click


@click.command("schema")
@click.argument("command_name", metavar="[COMMAND]", nargs=-1)
def command(command_name: tuple[str, ...]) -> int:
    """Print the JSON Schema of a sweep file, or of what COMMAND prints with --json.

    Save that of sweep files beside your sweeps and begin them with
    `# yaml-language-server: $schema=FILE`.
    """
    if command_name:
        from orchestrator.answers.schemas import schema_of

        schema = schema_of(" ".join(command_name))
    else:
        from sweeps.declaration.entries.sweep_spec import json_schema

        schema = json_schema()
    click.echo(json.dumps(schema, indent=1))
    return 0
