"""Who is told when a sweep ends or breaks off: the ``notify:`` section of a sweep file.

    notify: mail -s depthsweep me@example.org       # a command, or
    notify: https://ntfy.example/depth              # an address that is no secret
    notify: {variable: TEAM_HOOK, when: failure}    # one that is: it stands in the environment

It decides no result and enters no identity, and ``--notify`` tells somebody besides. A store keeps
sweep files, so an address that lets everybody post does not belong in one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from sweeps.spec import Frozen

Said = Annotated[str, Field(min_length=1)]
_WAYS = ("command", "url", "variable")


class Notify(Frozen):
    """A command, an address, or the variable of the driver's environment that holds either."""

    command: Said | None = Field(None, description="Run by a shell, with JSON on standard input.")
    url: Said | None = Field(None, description="JSON is posted to it.")
    variable: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")] | None = Field(
        None, description="Environment variable that holds the command or the URL."
    )
    when: Literal["end", "failure"] = Field(
        "end", description="failure: only where not everything ended as it should."
    )

    @field_validator("url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is not None and not is_address(url):
            raise ValueError("give an http:// or https:// URL, or a command")
        if url is not None and "@" in urlsplit(url).netloc:
            raise ValueError(
                "a name or password does not belong in a sweep file; give `variable`, the name of"
                " an environment variable that holds the URL"
            )
        return url

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(getattr(self, way) is not None for way in _WAYS) != 1:
            raise ValueError(f"give one of {', '.join(_WAYS)}")
        return self


def is_address(said: str) -> bool:
    """Return whether what is to be told is an http(s) URL."""
    parts = urlsplit(said)
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def looks_like_address(said: str) -> bool:
    """Return whether a text is meant as a URL and not as a command, whatever its scheme."""
    return "://" in said.split()[0] if said.strip() else False


def _by_form(value: Any) -> Any:
    """Take a text for a URL where it looks like one, else for a command."""
    if isinstance(value, str):
        return {"url" if looks_like_address(value) else "command": value.strip()}
    return value


NotifyEntry = Annotated[Notify, BeforeValidator(_by_form)]
