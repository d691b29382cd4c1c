"""A sweep file to its ordered runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from sweeps.declaration.entries.notify import Notify
from sweeps.declaration.entries.other_settings import read_settings, with_settings
from sweeps.declaration.entries.plugged import carried_text, read_spec
from sweeps.declaration.entries.sweep_spec import SweepSpec
from sweeps.declaration.entries.track import Track
from sweeps.declaration.grid import points_of
from sweeps.declaration.resolving import Resolver
from sweeps.declaration.sweep_files import claims_beside, sweep_file_of
from sweeps.declaration.yaml_source import YamlSource
from sweeps.errors import UserError
from sweeps.plugins.bundle import Bundle
from sweeps.plugins.catalogue import Plugins
from sweeps.plugins.opened import codes_of, remember
from sweeps.spec import (
    MEASUREMENTS,
    USUAL_MEASUREMENTS,
    Measurement,
    MeasurementKind,
    RunSpec,
    measurements_of,
)


@dataclass(frozen=True)
class Sweep:
    """A sweep file and the distinct runs it stands for, in the order of the file.

    ``measurements`` are the kinds of training-free measurement that it wants of its models;
    ``usual`` says that its file left that open, so that what was asked of it later stands.
    ``track`` says where its runs are shown besides the store, ``notify`` who is told of its end.
    ``claims`` is the text of the claims file that came with it, None where none did. ``plugins`` is
    the user's own code that runs use.
    """

    name: str
    description: str
    text: str
    runs: tuple[RunSpec, ...]
    measurements: tuple[MeasurementKind, ...] = USUAL_MEASUREMENTS
    usual: bool = False
    track: Track = field(default_factory=Track)
    notify: Notify | None = None
    claims: str | None = None
    plugins: tuple[Bundle, ...] = ()

    @cached_property
    def by_id(self) -> dict[str, RunSpec]:
        return {run.run_id: run for run in self.runs}

    def wanting(self, kinds: Collection[MeasurementKind]) -> Sweep:
        """Return this sweep with other kinds of measurement, in the order of ``MEASUREMENTS``."""
        return replace(self, measurements=tuple(kind for kind in MEASUREMENTS if kind in kinds))

    @cached_property
    def to_measure(self) -> list[Measurement]:
        """The distinct measurements that it wants."""
        return measurements_of(self.runs, self.measurements)


def read_sweep(given: str | Path) -> Sweep:
    """Read, validate and expand a sweep file, with the claims beside it; raise UserError naming
    file, line and remedy."""
    return SweepFile.read(given).sweep()


@dataclass(frozen=True)
class SweepFile:
    """A sweep file as it was when it was read, validated, and the code it lists, carried out."""

    path: Path
    source: YamlSource
    spec: SweepSpec
    plugins: Plugins

    @classmethod
    def read(cls, given: str | Path) -> SweepFile:
        """Read and validate; raise UserError naming file, line and remedy."""
        path = sweep_file_of(given)
        source = YamlSource.read(str(path))
        return cls(path, source, *read_spec(source))

    def sweep(self, changed: Sequence[str] = ()) -> Sweep:
        """Return the runs it stands for, with the claims beside it; raise as ``read_sweep``.

        ``changed`` are settings (``steps=10``) with other values than the file's: that is another
        sweep, under a name that says so.
        """
        settings = read_settings(changed, self.plugins)
        spec = with_settings(self.spec, settings, self.plugins) if settings else self.spec
        sweep = expand(spec, self.source, self.plugins)
        return replace(sweep, claims=claims_beside(self.path))

    @property
    def code(self) -> str | None:
        """What is to be put in ``CARRIED`` beside it where it is sent elsewhere; None where it
        lists no plugins."""
        return carried_text(self.spec.plugins, self.plugins.bundles)


def expand(spec: SweepSpec, source: YamlSource, plugins: Plugins | None = None) -> Sweep:
    """Return the runs of ``spec``: each block's grid, less its excludes, plus its includes.

    ``plugins`` is what the spec was validated with. Raises UserError for an empty block, a point
    that is not a valid run, or two equal runs.
    """
    plugins = plugins or Plugins()
    resolver = Resolver(spec, source, plugins)
    runs: list[RunSpec] = []
    first_seen: dict[str, tuple[str, RunSpec]] = {}
    for index, block in enumerate(spec.blocks):
        keys = ("blocks", index)
        where = source.where(*keys)
        points = list(points_of(spec, block, where))
        if not points:
            raise UserError(f"{where}: block {block.name!r} is empty: nothing in its grid is left")
        for point in points:
            run = resolver.run(point, keys, block.name)
            if run.run_id in first_seen:
                other, first = first_seen[run.run_id]
                what, remedy = run.describe(), "exclude it from one of them"
                if what != first.describe():
                    what += f" is {first.describe()} under another name"
                    remedy = "remove one of the names"
                raise UserError(
                    f"{where}: block {block.name!r} repeats a run of block {other!r}: {what};"
                    f" {remedy}"
                )
            first_seen[run.run_id] = block.name, run
            runs.append(run)
    usual = "measurements" not in spec.model_fields_set
    sweep = Sweep(
        *(spec.name, spec.description, source.text, tuple(runs)),
        usual=usual,
        track=spec.track,
        notify=spec.notify,
    )
    remember(plugins.bundles)
    used = {code.plugin_digest for run in runs for code in codes_of(run)}
    own = tuple(one for one in plugins.bundles if one.digest in used)
    return replace(sweep, plugins=own).wanting(spec.measurements)
