"""The manual page of the command line, made of what its commands say of themselves."""

from __future__ import annotations

import re
from inspect import cleandoc

import click


def manual(context: click.Context, version: str) -> str:
    """Return the page of a group of commands and of each below it, for ``man`` (roff).

    Args:
        context: the group's own, with its name.
        version: what is said at the foot.
    """
    name = context.info_name or "depthsweep"
    group = context.command
    lines = [
        f'.TH {name.upper()} 1 "" "{name} {version}" "User Commands"',
        ".SH NAME",
        rf"{name} \- {_text(_first(group))}",
        ".SH SYNOPSIS",
        rf".B {name}",
        r"[OPTIONS] COMMAND [ARGUMENTS]",
        ".SH OPTIONS",
        *_options(context),
        ".SH COMMANDS",
    ]
    for found in _below(context):
        lines += _command(found)
    return "\n".join([*lines, *_ending(name)]) + "\n"


def _below(context: click.Context) -> list[click.Context]:
    """Return the contexts of all commands of a group, those of its groups after them."""
    group = context.command
    assert isinstance(group, click.Group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        own = click.Context(command, parent=context, info_name=name)
        found += [own, *(_below(own) if isinstance(command, click.Group) else ())]
    return found


def _command(context: click.Context) -> list[str]:
    usage = " ".join(context.command.collect_usage_pieces(context))
    _, _, path = context.command_path.partition(" ")
    return [
        f".SS {path} {_text(usage)}",
        *_paragraphs(context.command.help or ""),
        *_options(context),
    ]


def _options(context: click.Context) -> list[str]:
    lines = []
    for parameter in context.command.get_params(context):
        said = parameter.get_help_record(context)
        if said is not None:
            lines += [".TP", rf"\fB{_text(said[0])}\fR", _text(said[1]) or "."]
    return lines


def _paragraphs(said: str) -> list[str]:
    """Return a command's description; what stands after click's mark is kept line by line."""
    lines: list[str] = []
    for paragraph in cleandoc(said).split("\n\n"):
        if paragraph.startswith("\b"):
            lines += [".PP", ".nf", *(_text(line) for line in paragraph.splitlines()[1:]), ".fi"]
        else:
            lines += [".PP", _text(" ".join(paragraph.split()))]
    return lines


def _ending(name: str) -> list[str]:
    return [
        ".SH EXIT STATUS",
        ".TP",
        "0",
        "All went well.",
        ".TP",
        "1",
        "Something failed.",
        ".TP",
        "2",
        "A mistake of yours; one line says what to do.",
        ".TP",
        "130, 143",
        "Interrupted, terminated; what was done is kept.",
        ".SH COMPLETION",
        ".nf",
        f'eval "$(_{name.upper()}_COMPLETE=bash_source {name})"',
        ".fi",
    ]


def _first(command: click.Command) -> str:
    return " ".join(cleandoc(command.help or "").split("\n\n")[0].split())


def _text(said: str) -> str:
    """Return text as roff takes it literally."""
    said = said.replace("\\", r"\e").replace("-", r"\-")
    said = "".join(c if c.isascii() else rf"\[u{ord(c):04X}]" for c in said)
    return re.sub(r"^([.'])", r"\\&\1", said)
