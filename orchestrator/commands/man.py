"""``depthsweep man``: the manual page."""

from __future__ import annotations

import click


@click.command("man")
@click.pass_context
def command(context: click.Context) -> int:
    """Print the manual page, with every command and option.

    \b
    depthsweep man | man -l -
    depthsweep man > ~/.local/share/man/man1/depthsweep.1
    """
    from importlib.metadata import version

    from orchestrator.shell.manual import manual

    assert context.parent is not None
    click.echo(manual(context.parent, version("depthsweep")), nl=False)
    return 0
