"""What a version of a sweep is known by, and how a user names one: ``demo`` or ``demo@3f2a``.

A version is what a sweep file stands for when it is run: runs, measurements, trackers, its text and
the claims that come with it. Where the file lay, who ran it and when do not enter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.errors import UserError, closest
from sweeps.spec import content_id

# Hex digits of a version that a user gives at least.
SHORTEST = 4
MARK = "@"
# Versions that an error names one by one.
LISTED = 5


@dataclass(frozen=True)
class SweepName:
    """The name of a sweep, and the beginning of a version's digest where one is meant."""

    name: str
    version: str | None = None

    @classmethod
    def parse(cls, given: str) -> SweepName:
        """Return what a user means by ``name`` or ``name@digest``; raise UserError where the
        digest is none, or too short to be meant."""
        name, marked, version = given.partition(MARK)
        if not marked:
            return cls(name)
        version = version.strip().lower()
        if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},}}", version):
            raise UserError(
                f"{given}: after {MARK} stand {SHORTEST} or more hex digits of a version;"
                f" `depthsweep ls {name}` lists them"
            )
        return cls(name, version)


def version_id(record: dict[str, Any], text: str, claims: str | None) -> str:
    """Return the digest of a version: 12 hex digits of SHA-256 over canonical JSON.

    Args:
        record: the sweep as resolved: description, measurements, track, and runs by their ids,
            which say all that decides a result.
        text: the sweep file.
        claims: the claims file that came with it.
    """
    content = {
        "description": record["description"],
        "measurements": record["measurements"],
        "track": record["track"],
        "runs": [entry["run_id"] for entry in record["runs"]],
        "text": text,
    }
    return content_id(content if claims is None else {**content, "claims": claims})


def chosen(wanted: SweepName, digests: Sequence[str]) -> str:
    """Return the one digest that a name's version begins; raise UserError for none or several."""
    prefix = wanted.version or ""
    found = [digest for digest in digests if digest.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(found[:LISTED])
        raise UserError(f"{wanted.name}{MARK}{prefix}: means {listed}; give more digits")
    raise UserError(f"sweep {wanted.name!r} has no version {prefix!r}; {_hint(wanted, digests)}")


def _hint(wanted: SweepName, digests: Sequence[str]) -> str:
    """Return the version that is nearest to the one wanted, as far as that goes, or the newest."""
    prefix = wanted.version or ""
    nearest = closest(prefix, [digest[: len(prefix)] for digest in digests])
    if len(digests) <= LISTED or not nearest.startswith("valid"):
        return nearest
    shown = ", ".join(digests[:LISTED])
    return f"the newest are {shown}; `depthsweep ls {wanted.name}` lists all {len(digests)}"
