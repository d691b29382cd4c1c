"""What a user calls a repository of the hub by in one word: ``owner/name@COMMIT:CONFIG``."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Not a path that begins at this folder, the one above, or the root.
_ID = re.compile(
    r"(?P<hub>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)@(?P<revision>[^@/:]*)(?::(?P<config>[\w.-]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubId:
    """A repository at a revision, and of a dataset the configuration that is meant."""

    hub: str
    revision: str
    config: str | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a full commit hash, which alone always means the same."""
        return _COMMIT.fullmatch(self.revision) is not None

    @classmethod
    def of(cls, said: str) -> HubId | None:
        """Return what a word means; None where it names no repository with a revision."""
        found = _ID.fullmatch(said)
        return None if found is None else cls(**found.groupdict())
