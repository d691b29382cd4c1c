"""A sweep file to its ordered runs."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweeps.declaration.plugged import read_spec
from sweeps.declaration.sources import check_local, names_of_labels, resolve_data, resolve_model
from sweeps.declaration.sweep_spec import Block, ObjectiveEntry, Settings, SweepSpec
from sweeps.declaration.track import Track
from sweeps.declaration.yaml_source import YamlSource, explain
from sweeps.errors import UserError, closest
from sweeps.plugins.bundle import Bundle
from sweeps.plugins.catalogue import Plugin, Plugins
from sweeps.plugins.opened import codes_of, remember
from sweeps.sources.ability import Ability, ability_of
from sweeps.spec import (
    DATA_ROLES,
    MEASUREMENTS,
    OBJECTIVE_DEFAULTS,
    OBJECTIVES,
    USUAL_MEASUREMENTS,
    Execution,
    Measurement,
    MeasurementKind,
    ModelSpec,
    Objective,
    Optimizer,
    Probe,
    RunSpec,
    measurements_of,
)

PRETRAINING = "pretraining"
_AXES = ("model", "objective", "control", "seed")
_REQUIRED = (*_AXES, "steps", "batch_size", "sequence_length", "learning_rate")


@dataclass(frozen=True)
class Sweep:
    """A sweep file and the distinct runs it stands for, in the order of the file.

    ``measurements`` are the kinds of training-free measurement that it wants of its models;
    ``usual`` says that its file left that open, so that what was asked of it later stands.
    ``track`` says where its runs are shown besides the store. ``claims`` is the text of the claims
    file that came with it, None where none did. ``plugins`` is the user's own code that runs use.
    """

    name: str
    description: str
    text: str
    runs: tuple[RunSpec, ...]
    measurements: tuple[MeasurementKind, ...] = USUAL_MEASUREMENTS
    usual: bool = False
    track: Track = field(default_factory=Track)
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


def read_sweep(path: str | Path) -> Sweep:
    """Read, validate and expand a sweep file, with the claims beside it; raise UserError naming
    file, line and remedy."""
    source = YamlSource.read(str(path))
    spec, plugins = read_spec(source)
    sweep = expand(spec, source, plugins)
    return replace(sweep, claims=_claims_beside(Path(path)))


def claims_files(sweep_file: Path) -> tuple[Path, Path]:
    """Return where claims about a sweep may stand, the first that is there counts: of its own in
    ``study.claims.yaml`` beside ``study.yaml``, or in ``claims.yaml`` for all of the folder."""
    return sweep_file.with_suffix(".claims.yaml"), sweep_file.with_name("claims.yaml")


def _claims_beside(sweep_file: Path) -> str | None:
    for path in claims_files(sweep_file):
        if path.is_file():
            try:
                return path.read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise UserError(f"{path}: cannot be read as text ({error})") from None
    return None


def expand(spec: SweepSpec, source: YamlSource, plugins: Plugins | None = None) -> Sweep:
    """Return the runs of ``spec``: each block's grid, less its excludes, plus its includes.

    ``plugins`` is what the spec was validated with. Raises UserError for an empty block, a point
    that is not a valid run, or two equal runs.
    """
    plugins = plugins or Plugins()
    resolver = _Resolver(spec, source, plugins)
    runs: list[RunSpec] = []
    first_seen: dict[str, tuple[str, RunSpec]] = {}
    for index, block in enumerate(spec.blocks):
        keys = ("blocks", index)
        where = source.where(*keys)
        points = list(_points(spec, block, where))
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
        spec.name, spec.description, source.text, tuple(runs), usual=usual, track=spec.track
    )
    remember(plugins.bundles)
    used = {code.plugin_digest for run in runs for code in codes_of(run)}
    own = tuple(one for one in plugins.bundles if one.digest in used)
    return replace(sweep, plugins=own).wanting(spec.measurements)


def _points(spec: SweepSpec, block: Block, where: str) -> Iterator[dict[str, Any]]:
    """Yield each point of a block as settings by name, defaults and block settings included."""
    shared = {**spec.defaults.said(), **block.set.said()}
    lists = {name: getattr(block.grid, name) for name in Settings.model_fields}
    axes = {name: values for name, values in lists.items() if values is not None}
    doubled = sorted(set(axes) & set(block.set.said()))
    if doubled:
        raise UserError(
            f"{where}: block {block.name!r} sets {doubled[0]!r} in both grid and set; keep one"
        )
    excluded = [0] * len(block.exclude)
    for values in itertools.product(*axes.values()) if axes else ():
        point = {**shared, **dict(zip(axes, values, strict=True))}
        hits = [k for k, entry in enumerate(block.exclude) if _matches(entry, point)]
        for k in hits:
            excluded[k] += 1
        if not hits:
            yield point
    for k, count in enumerate(excluded):
        if not count:
            said = ", ".join(f"{name}: {value}" for name, value in block.exclude[k].said().items())
            raise UserError(
                f"{where}: exclude {{{said}}} of block {block.name!r} matches no point of its grid"
            )
    for entry in block.include:
        yield {**shared, **entry.said()}


def _matches(entry: Settings, point: dict[str, Any]) -> bool:
    return all(point.get(name) == value for name, value in entry.said().items())


class _Resolver:
    """Turns points into runs, looking at each model, dataset and objective once."""

    def __init__(self, spec: SweepSpec, source: YamlSource, plugins: Plugins) -> None:
        self._spec = spec
        self._source = source
        self._plugins = plugins
        self._models: dict[str, ModelSpec] = {}
        self._objectives: dict[str, Objective] = {}
        self._abilities: dict[str, Ability] = {}
        probe = spec.probe
        self._probe = self._build(
            Probe,
            ("probe",),
            data=self._data(probe.data, ("text",), "probe", "data"),
            rows=probe.rows,
            rows_per_width=probe.rows_per_width,
            sequence_length=probe.sequence_length,
            every=probe.every,
            seed=probe.seed,
            metrics=tuple(probe.metrics),
        )
        self._check(self._probe.data, None, "probe", "data")
        for name in spec.models:
            self._model(name, "models", name)
        for name in spec.objectives:
            self._objective(name, "objectives", name)

    def run(self, point: dict[str, Any], keys: tuple[Any, ...], block: str) -> RunSpec:
        missing = [name for name in _REQUIRED if point.get(name) is None]
        if missing:
            raise UserError(
                f"{self._source.where(*keys)}: block {block!r} does not say {', '.join(missing)};"
                " add it to its grid, its set or the sweep's defaults"
            )
        model = self._model(point["model"], *keys, "grid", "model")
        objective = point["objective"]
        if objective == PRETRAINING:
            objective = model.source.pretraining
        fields = {name: value for name, value in point.items() if value is not None}
        run: RunSpec = self._build(
            RunSpec,
            keys,
            model=model,
            objective=self._objective(objective, *keys, "grid", "objective"),
            control=point["control"],
            seed=point["seed"],
            steps=point["steps"],
            batch_size=point["batch_size"],
            sequence_length=point["sequence_length"],
            optimizer=self._build(Optimizer, keys, **_only(Optimizer, fields)),
            probe=self._probe,
            execution=self._build(Execution, keys, **_only(Execution, fields)),
            precision=fields.get("precision", "fp32"),
        )
        self._require_fit(run, keys)
        return run

    def _require_fit(self, run: RunSpec, keys: tuple[Any, ...]) -> None:
        """Refuse what the model's own files say that it cannot do."""
        name = run.model.name
        lengths = {
            "sequence_length": run.sequence_length,
            "probe.sequence_length": run.probe.sequence_length,
        }
        try:
            if name not in self._abilities:
                self._abilities[name] = ability_of(run.model.source)
            self._abilities[name].require(name, run.objective.kind, lengths)
        except UserError as error:
            raise UserError(f"{self._source.where(*keys)}: {error}") from None

    def _model(self, name: str, *keys: Any) -> ModelSpec:
        if name not in self._models:
            try:
                source = resolve_model(name, self._spec.models, self._source.folder, self._plugins)
            except UserError as error:
                raise UserError(f"{self._source.where(*keys)}: {error}") from None
            self._models[name] = ModelSpec(name=name, source=source)
        return self._models[name]

    def _objective(self, name: str, *keys: Any) -> Objective:
        if name not in self._objectives:
            where = self._source.where(*keys)
            entry = self._spec.objectives.get(name)
            if entry is None:
                valid = [*self._spec.objectives, PRETRAINING]
                raise UserError(f"{where}: unknown objective {name!r}; {closest(name, valid)}")
            kind = entry.kind or name
            own = None if kind in OBJECTIVES else self._plugins.find("objective", kind)
            if own is not None:
                self._objectives[name] = self._plugged(own, name, entry, keys)
                return self._objectives[name]
            if kind not in OBJECTIVES:
                raise UserError(
                    f"{where}: objective {name!r} is none of {', '.join(OBJECTIVES)}; say which"
                    " with `kind:`"
                )
            options = entry.model_dump(exclude={"kind", "data"}, exclude_none=True)
            for option in options:
                if option not in OBJECTIVE_DEFAULTS[kind]:
                    raise UserError(f"{where}: {option} does nothing with objective {kind}")
            data = self._data(entry.data, DATA_ROLES[kind], "objectives", name, "data")
            if "labels" in OBJECTIVE_DEFAULTS[kind]:
                said = options.get("labels")
                options |= self._labels(data, said, "objectives", name, "labels")
            self._objectives[name] = self._build(
                Objective,
                keys,
                name=None if name == kind else name,
                kind=kind,
                data=data,
                **{**OBJECTIVE_DEFAULTS[kind], **options},
            )
            self._check(data, self._objectives[name], "objectives", name, "data")
        return self._objectives[name]

    def _plugged(
        self, own: Plugin, name: str, entry: ObjectiveEntry, keys: tuple[Any, ...]
    ) -> Objective:
        """Return an objective of a user's own kind."""
        at = ("objectives", name)
        try:
            options = own.mark.checked(entry.options or {})
        except UserError as error:
            raise UserError(f"{self._source.where(*at)}: {error}") from None
        kind, roles = own.mark.name, own.mark.target.roles
        objective: Objective = self._build(
            Objective,
            keys,
            name=None if name == kind else name,
            kind=kind,
            data=self._data(entry.data, roles, *at, "data"),
            options=options,
            code=own.code,
        )
        self._check(objective.data, objective, *at, "data")
        return objective

    def _data(self, entry: Any, roles: tuple[str, ...], *keys: str) -> Any:
        try:
            return resolve_data(entry, roles, self._source.folder)
        except UserError as error:
            raise UserError(f"{self._source.where(*keys)}: {error}") from None

    def _labels(self, data: Any, said: int | list[str] | None, *keys: str) -> dict[str, Any]:
        """Return how many labels there are, and what they are called where they have names; nothing
        where neither is known."""
        try:
            names = names_of_labels(data, said if isinstance(said, list) else ())
            if len(set(names)) < len(names):
                raise UserError("a label is named twice")
            if isinstance(said, int) and names and len(names) != said:
                raise UserError(
                    f"{said} are said, and the data has {len(names)}: {', '.join(names[:8])}"
                )
        except UserError as error:
            raise UserError(f"{self._source.where(*keys)}: {error}") from None
        count = said if isinstance(said, int) else len(names) or None
        return {**({"labels": count} if count else {}), "label_names": names}

    def _check(self, data: Any, objective: Objective | None, *keys: str) -> None:
        labels = objective.labels if objective else None
        names = objective.label_names if objective else ()
        try:
            check_local(data, labels, names)
        except UserError as error:
            raise UserError(f"{self._source.where(*keys)}: {error}") from None

    def _build(self, kind: type[Any], keys: tuple[Any, ...], /, **fields: Any) -> Any:
        try:
            return kind(**fields)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            message = explain(first, kind)
            if not first["loc"]:
                message = message.removeprefix("the sweep: ")
            where = self._source.where(*keys, *first["loc"])
            raise UserError(f"{where}: {message}") from None


def _only(kind: type[Any], fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in kind.model_fields}
