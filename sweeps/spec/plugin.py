"""A user's own code as a run names it: by what it says, wherever it lies."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from sweeps.spec.frozen import Frozen, number_text

OptionValue = bool | int | float | str | None | tuple[bool | int | float | str | None, ...]
Options = dict[str, OptionValue]


class PluginCode(Frozen):
    """The code that something of a run is made by; another content is another run.

    ``plugin`` is the file it was read from, in full, or the installed distribution that has it.
    """

    not_in_identity: ClassVar[frozenset[str]] = frozenset({"plugin"})

    plugin: str
    plugin_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @property
    def of_file(self) -> bool:
        return self.plugin.endswith(".py")


class PluginMetric(Frozen):
    """A metric of a user's own, with its options."""

    name: str
    options: Options = Field(default_factory=dict)
    code: PluginCode

    def __str__(self) -> str:
        """Return what tells it from any other, for the column that says a run's metrics."""
        said = f"({options_text(self.options)})" if self.options else ""
        return f"{self.name}{said}@{self.code.plugin_digest[:12]}"


def options_text(options: Options) -> str:
    """Return options for people, in the order of their names: ``share=0.5,sides=both``."""
    return ",".join(f"{name}={_text(value)}" for name, value in sorted(options.items()))


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + " ".join(map(_text, value)) + "]"
    if isinstance(value, float):
        return number_text(value)
    return str(value)
