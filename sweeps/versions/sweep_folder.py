"""What a store keeps of one sweep: every version of it that was run, and which was run last.

    sweeps/<name>/versions/<digest>/spec.yaml        the sweep file
                                    claims.yaml      the claims that came with it, if any did
                                    version.json     its digest, when it was run last, its run ids
                                    resolved.json    every run in full; written last: then it counts
    sweeps/<name>/current.json                       the version that was run last

A version's folder is named by its content, so two drivers at once write either two folders or the
same files; the last to write current.json, whole, has the current version. Without that file the
version with the newest time is current.

Before there were versions the files of the one there was stood in ``sweeps/<name>`` itself: they
are read there, as a version like any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from sweeps.declaration.entries.notify import Notify
from sweeps.declaration.entries.track import Track
from sweeps.declaration.expand import Sweep
from sweeps.declaration.recorded_runs import RecordedRuns, sweep_record, wanted_measurements
from sweeps.errors import UserError
from sweeps.files.whole_files import Place, read_if_readable, write_json, write_text
from sweeps.plugins.opened import remember
from sweeps.spec import content_id
from sweeps.versions.plugin_code import kept_code
from sweeps.versions.version_id import SweepName, chosen, version_id

RESOLVED, SPEC, CLAIMS, HEADER = "resolved.json", "spec.yaml", "claims.yaml", "version.json"
CURRENT, VERSIONS = "current.json", "versions"


@dataclass(frozen=True)
class Version:
    """One version of a sweep that was run, in the folder of its files."""

    sweep: str
    folder: Place
    # The digest by which the folder is named; None for files of before there were versions.
    named: str | None = None

    @cached_property
    def digest(self) -> str:
        if self.named is not None:
            return self.named
        try:
            # Of before there was a choice of measurements, or trackers, a record has no word.
            wanted = wanted_measurements(self._resolved)
            record = {"track": {}, **self._resolved, "measurements": wanted}
            return version_id(record, *self.said)
        except (OSError, ValueError, KeyError, TypeError):
            # A record that is damaged: what is left of it tells it from others.
            return content_id({name: self._raw(name) for name in (RESOLVED, SPEC)})

    @property
    def recorded(self) -> str:
        """When it was run last, in ISO 8601; empty where that cannot be read."""
        said = self._header.get("recorded") or self._resolved.get("recorded")
        return said if isinstance(said, str) else ""

    def require_its_runs(self) -> None:
        """Raise UserError where it cannot be read which runs are its own."""
        if not any(isinstance(one.get("runs"), list) for one in (self._header, self._resolved)):
            raise UserError(
                f"{self.folder / RESOLVED}: cannot be read, so it cannot be told which runs are of"
                f" sweep {self.sweep}; give the sweep file to `depthsweep run` again, which writes"
                " it anew"
            )

    @cached_property
    def run_ids(self) -> tuple[str, ...]:
        """The ids of its runs, in its order; none where they cannot be read."""
        runs = self._header.get("runs")
        if not isinstance(runs, list):
            entries = self._resolved.get("runs", ())
            runs = [entry.get("run_id") for entry in entries if isinstance(entry, dict)]
        return tuple(run_id for run_id in runs if isinstance(run_id, str))

    @property
    def said(self) -> tuple[str, str | None]:
        """The text of the sweep file, and of the claims that came with it."""
        text = (self.folder / SPEC).read_text(encoding="utf-8")
        claims = self.folder / CLAIMS
        return text, claims.read_text(encoding="utf-8") if claims.is_file() else None

    def load(self) -> Sweep:
        """Return the sweep as it was run; raise UserError where its record cannot be read."""
        try:
            resolved = self.record()
            runs = tuple(RecordedRuns(resolved["runs"]))
            text, claims = self.said
            track = Track.model_validate_json(json.dumps(resolved.get("track", {})))
            told = resolved.get("notify")
            wanted = wanted_measurements(resolved)
            said = resolved["description"]
            digests = resolved.get("plugins", ())
            plugins = tuple(one for d in digests if (one := kept_code(self._root, d)) is not None)
            remember(plugins)
            return Sweep(
                *(self.sweep, said, text, runs, wanted),
                track=track,
                notify=None if told is None else Notify.model_validate_json(json.dumps(told)),
                claims=claims,
                plugins=plugins,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            detail = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.folder}: the record of sweep {self.sweep} cannot be read ({detail}); give"
                " the sweep file to `depthsweep run` again, which writes it anew"
            ) from None

    @property
    def plugin_digests(self) -> tuple[str, ...]:
        """The digests of the users' code that its runs use; none where that cannot be read."""
        said = self._resolved.get("plugins", ())
        return tuple(one for one in said if isinstance(one, str))

    @property
    def lost_code(self) -> tuple[str, ...]:
        """The digests of code that the store has not got any more, or not whole."""
        return tuple(d for d in self.plugin_digests if kept_code(self._root, d) is None)

    @property
    def _root(self) -> Place:
        sweep = self.folder if self.named is None else self.folder.parent.parent
        return sweep.parent.parent

    def record(self) -> dict[str, Any]:
        """Return what is recorded of it, tens of MB where runs are thousands; raise ValueError or
        OSError where that cannot be read."""
        return sweep_record((self.folder / RESOLVED).read_bytes())

    @cached_property
    def _header(self) -> dict[str, Any]:
        header = None if self.named is None else read_if_readable(self.folder / HEADER)
        return header or {}

    @cached_property
    def _resolved(self) -> dict[str, Any]:
        return read_if_readable(self.folder / RESOLVED) or {}

    def _raw(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""


@dataclass(frozen=True)
class SweepFolder:
    """The folder of one sweep in a store."""

    path: Place

    @property
    def name(self) -> str:
        return self.path.name

    def versions(self) -> list[Version]:
        """Return every version that was run, the newest first."""
        kept = {
            path.parent.name: Version(self.name, path.parent, path.parent.name)
            for path in (self.path / VERSIONS).glob(f"*/{RESOLVED}")
        }
        first = self._first()
        if first is not None and first.digest not in kept:
            kept[first.digest] = first
        return sorted(kept.values(), key=lambda one: (one.recorded, one.digest), reverse=True)

    def current(self) -> Version | None:
        """Return the version that was run last; None where none was."""
        said = (read_if_readable(self.path / CURRENT) or {}).get("version")
        if isinstance(said, str) and said.isalnum():
            folder = self.path / VERSIONS / said
            if (folder / RESOLVED).is_file():
                return Version(self.name, folder, said)
        first = self._first()
        if first is not None and not (self.path / VERSIONS).is_dir():
            return first
        return next(iter(self.versions()), None)

    def version(self, wanted: SweepName) -> Version | None:
        """Return the version that a name means; None where none was run.

        Raises UserError where it means none of those that were run, or several.
        """
        if wanted.version is None:
            return self.current()
        found = {one.digest: one for one in self.versions()}
        return found[chosen(wanted, list(found))] if found else None

    def save(self, sweep: Sweep) -> None:
        """Record a sweep as written and as resolved; from now on that is its current version."""
        record = _record(sweep)
        digest = version_id(record, sweep.text, sweep.claims)
        folder, now = self.path / VERSIONS / digest, datetime.now(UTC).isoformat()
        _put(folder / SPEC, sweep.text)
        if sweep.claims is not None:
            _put(folder / CLAIMS, sweep.claims)
        runs = [run.run_id for run in sweep.runs]
        write_json(folder / HEADER, {"version": digest, "recorded": now, "runs": runs})
        _put(folder / RESOLVED, json.dumps(record, indent=1, sort_keys=True) + "\n")
        write_json(self.path / CURRENT, {"version": digest, "recorded": now})

    def _first(self) -> Version | None:
        """Return the version of before there were versions, if one was run."""
        return Version(self.name, self.path) if (self.path / RESOLVED).is_file() else None


def sweep_folders(root: Place) -> Iterator[SweepFolder]:
    """Yield the folder of each sweep that a store has run, in order of their names."""
    found = {path.parent.name for path in root.glob(f"sweeps/*/{RESOLVED}")}
    found |= {
        path.parent.parent.parent.name for path in root.glob(f"sweeps/*/{VERSIONS}/*/{RESOLVED}")
    }
    for name in sorted(found):
        if not name.startswith("."):
            yield SweepFolder(root / "sweeps" / name)


def _record(sweep: Sweep) -> dict[str, Any]:
    code = {"plugins": [one.digest for one in sweep.plugins]} if sweep.plugins else {}
    told = sweep.notify and sweep.notify.model_dump(mode="json", exclude_none=True)
    return {
        **code,
        **({"notify": told} if told else {}),
        "name": sweep.name,
        "description": sweep.description,
        "measurements": list(sweep.measurements),
        "track": sweep.track.model_dump(mode="json", exclude_none=True),
        "runs": [{"run_id": run.run_id, "spec": run.model_dump(mode="json")} for run in sweep.runs],
    }


def _put(path: Place, text: str) -> None:
    """Write a file, unless it says just that: another driver may be reading it."""
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (FileNotFoundError, ValueError):
        pass
    write_text(path, text)
