"""A point of a sweep's grid to the run it stands for: models, data and objectives looked up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from sweeps.declaration.entries.data_roles import read_roles
from sweeps.declaration.entries.held_out import held_out, held_out_rows, trained_rows
from sweeps.declaration.entries.sweep_spec import ObjectiveEntry, SweepSpec
from sweeps.declaration.sources import check_local, names_of_labels, resolve_data, resolve_model
from sweeps.declaration.yaml_source import YamlSource, explain
from sweeps.errors import UserError, closest
from sweeps.plugins.catalogue import Plugin, Plugins
from sweeps.rows.cells import Labels
from sweeps.rows.local_rows import PLAIN_TEXT, label_role
from sweeps.sources.ability import Ability, ability_of, require_same_architecture
from sweeps.spec import (
    COMPARING,
    DATA_FORMS,
    OBJECTIVE_DEFAULTS,
    OBJECTIVES,
    All,
    Cell,
    ComparedModel,
    Evaluation,
    Execution,
    ModelSource,
    ModelSpec,
    NoAdapter,
    Objective,
    Optimizer,
    Probe,
    RunSpec,
)

PRETRAINING = "pretraining"
# Cells in which a conversation may be.
TALKED: tuple[Cell, ...] = ("prompt", "dialogue")
_AXES = ("model", "objective", "control", "seed")
_REQUIRED = (*_AXES, "steps", "batch_size", "sequence_length", "learning_rate")


class Resolver:
    """Turns points into runs, looking at each model, dataset and objective once."""

    def __init__(self, spec: SweepSpec, source: YamlSource, plugins: Plugins) -> None:
        self._spec = spec
        self._source = source
        self._plugins = plugins
        self._models: dict[str, ModelSpec] = {}
        self._objectives: dict[str, Objective] = {}
        self._abilities: dict[str, Ability] = {}
        # Objectives whose rows are conversations.
        self._chats: set[str] = set()
        self._evaluations: dict[str, Evaluation | None] = {}
        self._held_out_rows: dict[str, int | None] = {}
        self._trained_rows: dict[str, int | None] = {}
        probe = spec.probe
        self._probe = self._build(
            Probe,
            ("probe",),
            data=self._data(probe.data, tuple(PLAIN_TEXT), "probe", "data"),
            rows=probe.rows,
            rows_per_width=probe.rows_per_width,
            sequence_length=probe.sequence_length,
            every=probe.every,
            seed=probe.seed,
            metrics=tuple(probe.metrics),
        )
        with self._at("probe", "data"):
            check_local(self._probe.data, PLAIN_TEXT)
        for name in spec.models:
            self._model(name, "models", name)
        for name in spec.objectives:
            self._objective(name, "objectives", name)

    def run(self, point: dict[str, Any], keys: tuple[Any, ...], block: str) -> RunSpec:
        missing = [name for name in _REQUIRED if point.get(name) is None]
        with self._at(*keys):
            if missing:
                raise UserError(
                    f"block {block!r} does not say {', '.join(missing)}; add it to its grid, its"
                    " set or the sweep's defaults"
                )
        model = self._model(point["model"], *keys, "grid", "model")
        objective = point["objective"]
        if objective == PRETRAINING:
            with self._at(*keys, "grid", "objective"):
                objective = self._pretraining(model)
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
            optimizer=self._build(Optimizer, keys, **self._optimizer(fields, keys)),
            probe=self._probe,
            execution=self._build(Execution, keys, **_only(Execution, fields)),
            evaluation=self._evaluation(objective),
            stop=fields.get("stop"),
            adapter=fields.get("adapter", NoAdapter()),
            selection=fields.get("selection", All()),
            precision=fields.get("precision", "fp32"),
            dropout=fields.get("dropout", False),
            record_every=fields.get("record_every", 1),
        )
        with self._at(*keys):
            self._require_fit(run)
        self._require_a_batch(run, objective)
        self._require_candidates(run, objective)
        return run

    def _optimizer(self, fields: dict[str, Any], keys: tuple[Any, ...]) -> dict[str, Any]:
        """Return what a point says of its optimizer, by the fields of the specification."""
        said = _only(Optimizer, fields)
        choice = fields.get("optimizer")
        with self._at(*keys):
            if choice is not None:
                twice = sorted(said.keys() & choice.options.keys())
                if twice:
                    raise UserError(
                        f"{twice[0]} is said by itself and as an option of {choice.rule}; keep one"
                    )
                said |= {"rule": choice.rule, "own": choice.own, **choice.options}
            if said.get("decay_all") and "weight_decay" not in said:
                raise UserError("decay_all does nothing without weight_decay")
        # Without decay both are the same, and the identity has the one that it was born with.
        said["decay_all"] = said.get("decay_all", False) or not said.get("weight_decay")
        return said

    def _require_fit(self, run: RunSpec) -> None:
        """Refuse what the model's own files say that it cannot do."""
        name = run.model.name
        lengths = {
            "sequence_length": run.sequence_length,
            "probe.sequence_length": run.probe.sequence_length,
        }
        if name not in self._abilities:
            self._abilities[name] = ability_of(run.model.source)
        self._abilities[name].require(name, run.objective.kind, lengths)
        answers = run.evaluation is not None and run.evaluation.refusal is not None
        if run.objective.label in self._chats or answers:
            self._abilities[name].require_template(name)
        if run.objective.bos is not None:
            self._abilities[name].require_first_token(name)

    def _require_a_batch(self, run: RunSpec, name: str) -> None:
        """Refuse fewer held-out rows than are compared with each other."""
        if run.evaluation is None or run.objective.kind not in COMPARING:
            return
        if name not in self._held_out_rows:
            self._held_out_rows[name] = held_out_rows(run.objective, run.evaluation)
        rows = self._held_out_rows[name]
        if rows is not None and rows < run.batch_size:
            with self._at(*self._place_of_evaluation(name)):
                raise UserError(
                    f"{rows} rows are held out, fewer than one batch of {run.batch_size}, in which"
                    f" {run.objective.kind} compares them; hold out more, or lower batch_size"
                )

    def _require_candidates(self, run: RunSpec, name: str) -> None:
        """Refuse to select of examples without losses of their own, or of too few."""
        rule = run.selection.kind
        if isinstance(run.selection, All):
            return
        own = self._plugins.find("objective", run.objective.kind) if run.objective.code else None
        with self._at("objectives", name):
            if own is not None and getattr(own.mark.target, "compares_examples", False):
                raise UserError(
                    f"selection {rule} needs a loss of each example, and {name} compares examples"
                    " with each other (compares_examples): use selection all"
                )
            if name not in self._trained_rows:
                apart = own is None and not run.objective.packed
                self._trained_rows[name] = (
                    trained_rows(run.objective, run.evaluation) if apart else None
                )
            rows = self._trained_rows[name]
            if rows is not None and rows < run.candidates:
                raise UserError(
                    f"selection {rule} chooses from {run.candidates} candidates, and there are"
                    f" {rows} rows to train on; lower batch_size, raise its share, or give more"
                )

    def _place_of_evaluation(self, name: str) -> tuple[str, ...]:
        own = "evaluation" in self._spec.objectives[name].model_fields_set
        return ("objectives", name, "evaluation") if own else ("evaluation",)

    def _model(self, name: str, *keys: Any) -> ModelSpec:
        if name not in self._models:
            with self._at(*keys):
                source = resolve_model(name, self._spec.models, self._source.folder, self._plugins)
                compared = self._compared(name, source)
            self._models[name] = ModelSpec(name=name, source=source, compare_to=compared)
        return self._models[name]

    def _compared(self, name: str, source: ModelSource) -> tuple[ComparedModel, ...]:
        """Return what a model is said to be compared with; all of it, frozen or not."""
        entry = self._spec.models.get(name)
        if entry is None or entry.compare_to is None:
            return ()
        if entry.compare_to == name:
            raise UserError(f"model {name!r}: compare_to names itself; name what it was made of")
        other = resolve_model(
            entry.compare_to, self._spec.models, self._source.folder, self._plugins
        )
        require_same_architecture(name, source, entry.compare_to, other)
        whole = other.model_copy(update={"freeze": ()})
        return (ComparedModel(name=entry.compare_to, source=whole),)

    def _objective(self, name: str, *keys: Any) -> Objective:
        if name not in self._objectives:
            with self._at(*keys):
                entry, kind, own = self._kind_of(name)
                options = {} if own else _options_of(entry, kind)
            if own is not None:
                self._objectives[name] = self._plugged(own, name, entry, keys)
                return self._objectives[name]
            with self._at("objectives", name, "data"):
                roles, cells = read_roles(entry.data, DATA_FORMS[kind], self._source.folder)
            data = self._data(entry.data, roles, "objectives", name, "data")
            if "labels" in OBJECTIVE_DEFAULTS[kind]:
                said, role = options.get("labels"), str(label_role(cells))
                options |= self._labels(data, role, said, "objectives", name, "labels")
            if roles != tuple(DATA_FORMS[kind][0].roles):
                options["read_roles"] = roles
            self._objectives[name] = self._build(
                Objective,
                keys,
                name=None if name == kind else name,
                kind=kind,
                data=data,
                **{**OBJECTIVE_DEFAULTS[kind], **options},
            )
            with self._at("objectives", name, "data"):
                self._check(self._objectives[name], name)
            self._evaluation(name)
        return self._objectives[name]

    def _pretraining(self, model: ModelSpec) -> str:
        """Return the name of the objective that ``pretraining`` stands for with a model: what is
        called by the kind that it was pretrained with, or else the only one of that kind."""
        kind, said = model.source.pretraining, self._spec.objectives
        named = [kind] if kind in said else [name for name in said if said[name].kind == kind]
        if len(named) == 1:
            return named[0]
        found = (
            f"{', '.join(named)} are of that kind; call one {kind}"
            if named
            else (f"no objective here is of that kind; add one (`{kind}: {{data: ...}}`)")
        )
        raise UserError(f"objective {PRETRAINING} is {kind} for model {model.name!r}, and {found}")

    def _kind_of(self, name: str) -> tuple[ObjectiveEntry, str, Plugin | None]:
        """Return what the sweep says of an objective, its kind, and the plugin that has it."""
        entry = self._spec.objectives.get(name)
        if entry is None:
            valid = [*self._spec.objectives, PRETRAINING]
            raise UserError(f"unknown objective {name!r}; {closest(name, valid)}")
        kind = entry.kind or name
        own = None if kind in OBJECTIVES else self._plugins.find("objective", kind)
        if own is None and kind not in OBJECTIVES:
            raise UserError(
                f"objective {name!r} is none of {', '.join(OBJECTIVES)}; say which with `kind:`"
            )
        return entry, kind, own

    def _plugged(
        self, own: Plugin, name: str, entry: ObjectiveEntry, keys: tuple[Any, ...]
    ) -> Objective:
        """Return an objective of a user's own kind."""
        kind, roles = own.mark.name, tuple(own.mark.target.roles)
        with self._at("objectives", name):
            options = own.mark.checked(entry.options or {})
        objective: Objective = self._build(
            Objective,
            keys,
            name=None if name == kind else name,
            kind=kind,
            data=self._data(entry.data, roles, "objectives", name, "data"),
            read_roles=roles,
            options=options,
            code=own.code,
        )
        with self._at("objectives", name):
            own.mark.try_out(objective, options=options)
        with self._at("objectives", name, "data"):
            self._check(objective, name)
        return objective

    def _evaluation(self, name: str) -> Evaluation | None:
        """Return what runs of an objective are scored on: its own, or else the sweep's."""
        if name not in self._evaluations:
            objective, entry = self._objectives[name], self._spec.objectives[name]
            own = "evaluation" in entry.model_fields_set
            said = entry.evaluation if own else self._spec.evaluation
            with self._at(*self._place_of_evaluation(name)):
                found = held_out(said, entry.data, objective, self._source.folder)
            self._evaluations[name] = found
        return self._evaluations[name]

    def _check(self, objective: Objective, name: str) -> None:
        labels = Labels(objective.labels, objective.label_names)
        rows = check_local(objective.data, objective.cells, labels)
        said = [cell for role in rows if objective.cells[role] in TALKED for cell in rows[role]]
        if "messages" in objective.roles or any(isinstance(cell, list) for cell in said):
            self._chats.add(name)

    @contextmanager
    def _at(self, *keys: Any) -> Iterator[None]:
        """Say with a mistake meanwhile where in the sweep file it is."""
        try:
            yield
        except UserError as error:
            raise UserError(f"{self._source.where(*keys)}: {error}") from None

    def _data(self, entry: Any, roles: tuple[str, ...], *keys: str) -> Any:
        with self._at(*keys):
            return resolve_data(entry, roles, self._source.folder)

    def _labels(
        self, data: Any, role: str, said: int | list[str] | None, *keys: str
    ) -> dict[str, Any]:
        """Return how many labels there are, and what they are called where they have names; nothing
        where neither is known."""
        with self._at(*keys):
            names = names_of_labels(data, role, said if isinstance(said, list) else ())
            if len(set(names)) < len(names):
                raise UserError("a label is named twice")
            if isinstance(said, int) and names and len(names) != said:
                raise UserError(
                    f"{said} are said, and the data has {len(names)}: {', '.join(names[:8])}"
                )
        count = said if isinstance(said, int) else len(names) or None
        return {**({"labels": count} if count else {}), "label_names": names}

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


def _options_of(entry: ObjectiveEntry, kind: str) -> dict[str, Any]:
    """Return the options that are said of an objective; raise UserError for one that does nothing
    with its kind."""
    options = entry.model_dump(exclude={"kind", "data", "evaluation"}, exclude_none=True)
    for option in options:
        if option not in OBJECTIVE_DEFAULTS[kind]:
            raise UserError(f"{option} does nothing with objective {kind}")
    return options


def _only(kind: type[Any], fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in kind.model_fields}
