"""The settings of a run, by rule: every field of the specification under one flat name.

Nothing here lists settings. The fields of ``RunSpec`` and of its parts are walked, so a setting
that is added to the specification is a column of ``runs``, and tells conditions apart, by itself.

A part that has a name (model, objective), a kind (control) or a rule (optimizer) is called by the
field it stands in, and that name is its first setting. Any other setting has the name that the
sweep file uses, its last: ``learning_rate``, ``schedule``, ``max_norm``. The part stands before it
where the sweep file has a block for it (``probe_rows``), and where the name is taken: by a setting
nearer to the run, by the same in another part, or by a column of the tables
(``objective_revision``, ``model_revision``).

A setting *decides* when another value makes another identity, or when it is a part's name. Paths
and ``execution`` never do. A condition is all that decides but the seed.
"""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from sweeps.declaration.entries.sweep_spec import SweepSpec
from sweeps.spec import RunSpec, every_score, score_column
from sweeps.spec.frozen import number_text

SEED = "seed"
HEADS = ("model", "objective", "control")

# Of an evaluation: its scores at a run's end, and how far the loss went.
_SCORED = ("evaluation_loss_change", *map(score_column, every_score()))
# Columns of the tables and of what is made of them, whose names a setting cannot take; a test
# compares them with what the tables have.
TAKEN = frozenset(
    (
        *("run_id", "step", "layer", "group", "depth", "rows", "width", "loss", "grad_norm"),
        *("scheduled_learning_rate", "clip_coefficient", "targets", "weight_norm", "update_norm"),
        *("displacement", "displacement_cosine", "reversion", "prompt", "prompt_kind", "answer"),
        *("answer_tokens", "refused", "refused_by_judge", "broken", "answer_kl", "coefficient"),
        *("procrustes", "cka_distance", "cka_distance_debiased", "mean_shift", "steps_covered"),
        *("scale_log_ratio", "effective_rank", "rank_95", "rank_99", "subspace_overlap"),
        *("procrustes_null", "cka_distance_null", "cka_distance_debiased_null", "model_source"),
        *("family", "kind", "block", "model_layers", "stack", "block_class", "block_number"),
        *("iteration", "stack_layers", "model_depth", "model_stacks", "negative_control"),
        *("model_width", "parameters", "pretraining_loss", "pretraining_loss_se", "before", "loop"),
        *("unigram_entropy", "dataset", "objective_distance_common_noisy"),
        *("propagation", "propagation_sd", "objective_distance", "objective_distance_low"),
        *("objective_distance_high", "objective_distance_noisy", "objective_distance_common"),
        *("status", "last_step", "final_loss", "seconds", "attempts"),
        *("score", *_SCORED),
        *(f"{name}_{arm}" for name in _SCORED for arm in ("against", "control")),
        *("attempt", "started", "ended", "node", "pid", "cause", "error", "at", "blocks", "mean"),
        *("null", "null_low", "null_high", "value", "low", "high", "reason", "n", "seeds"),
        *("diverged", "missing", "planned", "flags", "slope", "slope_low", "slope_high"),
        *("slope_normalised", "slope_normalised_low", "slope_normalised_high", "spearman"),
        *("spearman_low", "spearman_high", "centre_of_mass", "centre_of_mass_low"),
        *("centre_of_mass_high", "concentration_last_quarter", "concentration_last_quarter_low"),
        *("concentration_last_quarter_high", "width_low", "width_high", "steepness"),
        *("steepness_low", "steepness_high", "slope_against", "slope_control", "along"),
        *("along_low", "along_high", "retained", "retained_low", "retained_high", "verdict"),
        *("verdict_procrustes", "verdict_cka_distance", "verdict_cka_distance_debiased"),
        *("sequences", "rows_left_out", "largest_share_before", "largest_share", "sequence_group"),
        *("rows_a_feature", "theil_sen", "theil_sen_low", "theil_sen_high", "slope_dfbeta"),
        *("width_beyond_slope", "width_beyond_slope_low", "width_beyond_slope_high"),
        *("embedding_change", "saturated", "dose", "dose_slope", "without_gradient"),
        *("slope_beyond_propagation", "slope_beyond_propagation_low"),
        *("slope_beyond_propagation_high", "beyond_propagation", "reference", "reference_low"),
        *("reference_high", "retained_unbounded", "pairs", "p_persists", "p_collapses"),
        *("p_reverses", "verdict_delta_0.1", "verdict_delta_0.5", "verdict_equal_change"),
        *("verdict_equal_loss", "later_iteration", "rank_95_before", "subspace_overlap_before"),
        # Of attempts: what they were made with.
        *("depthsweep_version", "git_commit", "code_digest", "python_version", "torch_version"),
        *("deepspeed_version", "transformers_version", "datasets_version", "tokenizers_version"),
        *("numpy_version", "pyarrow_version", "ray_version", "peft_version", "cuda_version"),
        "driver_version",
        *("device", "hardware"),
        # Of the tables that a report draws.
        *("cell", "condition", "cut_high", "cut_low", "finding", "interval", "loss_high"),
        *("loss_low", "seed_slope", "seed_steepness", "shown", "shown_high", "shown_low", "span"),
        *("arm", "edge_high", "edge_low", "high_null", "high_own", "high_shared", "kept_said"),
        *("most", "row", "seed_against", "seed_change", "seed_control", "seed_loss_change"),
        *("seed_values", "verdict_said", "view"),
        *("metric", "candidate", "example", "length", "chosen", "layer_shares"),
        *("treatment", "setting", "ratio", "relative", "spread", "start", "until", "runs"),
    )
)

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Setting:
    """One setting of a run.

    Attributes:
        path: its place in the specification.
        name: its flat name, also the column it is in.
        kind: ``str``, ``int``, ``float`` or ``bool``: what ``value`` gives where it is not None.
        decides: whether runs that differ in it are of two conditions, or of two seeds.
    """

    path: tuple[str, ...]
    name: str
    kind: type
    decides: bool

    def value(self, run: RunSpec) -> Scalar:
        """Return what a run has there; None where it has no such part or says nothing."""
        found: Any = run
        for field in self.path:
            found = getattr(found, field, None)
            if found is None:
                break
        if found is None and len(self.path) == 2 and self.name in HEADS:
            label: str | None = getattr(getattr(run, self.path[0]), "label", None)
            return label
        return _scalar(found, self.kind)

    def means_something(self, run: RunSpec) -> bool:
        """Return whether a run has such a setting: not of a part that is another kind, as the rank
        of an adapter where there is none, nor what its own part does not use."""
        found: Any = run
        for field in self.path:
            if field not in type(found).model_fields or field in getattr(found, "unused", ()):
                return False
            found = getattr(found, field)
            if found is None:
                break
        return True


def _scalar(value: Any, kind: type) -> Scalar:
    """Return a value as what its column holds; lists and mappings as text, in full."""
    if value is None:
        return None
    if isinstance(value, dict):
        return ",".join(f"{key}={each}" for key, each in sorted(value.items())) or None
    if isinstance(value, (tuple, list)):
        return ",".join(str(each) for each in value) or None
    made: Scalar = kind(value)
    return made


@cache
def settings_of(spec: type[RunSpec] = RunSpec) -> tuple[Setting, ...]:
    """Return every setting of a specification, in the order of its fields."""
    leaves = dict(_leaves(spec, ()))
    names = _names(spec, list(leaves))
    return tuple(
        Setting(path, names[path], kind, _decides(spec, path)) for path, kind in leaves.items()
    )


@cache
def condition_settings(spec: type[RunSpec] = RunSpec) -> tuple[Setting, ...]:
    """Return the settings that decide a result, without the seed."""
    return tuple(one for one in settings_of(spec) if one.decides and one.name != SEED)


def control_options(spec: type[RunSpec] = RunSpec) -> list[str]:
    """Return the names of the options of controls: what tells two of one kind apart."""
    found = [one for one in condition_settings(spec) if one.path[0] == "control"]
    return [one.name for one in found if one.name != "control"]


# ------------------------------------------------------------------------------------------- walk
def _leaves(part: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], type]]:
    """Yield the path and kind of each field that is no part itself, those of a union once."""
    fields = dict(part.model_fields)
    head = _head(part) if path else None
    if head is not None:
        fields = {head: fields.pop(head), **fields}
    for name, field in fields.items():
        here = (*path, name)
        parts = _parts(field.annotation)
        if not parts:
            yield here, _kind(field.annotation)
        # A field of the same name in two variants of a part is one setting.
        kinds: dict[tuple[str, ...], set[type]] = {}
        for one in parts:
            for leaf, kind in _leaves(one, here):
                kinds.setdefault(leaf, set()).add(kind)
        for leaf, found in kinds.items():
            yield leaf, _widest(found)


def _head(part: type[BaseModel]) -> str | None:
    """Return the field by which a part is called."""
    return next((name for name in ("name", "kind", "rule") if name in part.model_fields), None)


def _members(annotation: Any) -> list[Any]:
    """Return what a type is a union of, looking through ``Annotated``; without None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [one for each in get_args(annotation) for one in _members(each)]
    return [] if annotation is type(None) else [annotation]


def _parts(annotation: Any) -> list[type[BaseModel]]:
    return [
        one for one in _members(annotation) if isinstance(one, type) and issubclass(one, BaseModel)
    ]


def _kind(annotation: Any) -> type:
    kinds: set[type] = set()
    for one in _members(annotation):
        if get_origin(one) is Literal:
            kinds |= {type(value) for value in get_args(one)}
        else:
            kinds.add(one if one in (bool, int, float) else str)
    return _widest(kinds)


def _widest(kinds: set[type]) -> type:
    """Return the kind that holds values of all: text where they are not all numbers."""
    if len(kinds) == 1:
        return kinds.pop()
    return float if kinds == {int, float} else str


# ------------------------------------------------------------------------------------------ names
def _names(spec: type[RunSpec], paths: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Return a name for each path, the shortest that is its own."""
    names: dict[tuple[str, ...], str] = {}
    for path in paths:
        if len(path) == 1 or (
            len(path) == 2
            and any(
                path[1] == _head(part) for part in _parts(spec.model_fields[path[0]].annotation)
            )
        ):
            names[path] = path[0]
    used = set(names.values()) | TAKEN
    rest = [path for path in paths if path not in names]
    for form in (_last, _with_part, "_".join):
        counts = Counter(form(path) for path in rest)
        given = {
            path: form(path)
            for path in rest
            if counts[form(path)] == 1
            and form(path) not in used
            and (form is not _last or path[0] not in SweepSpec.model_fields)
        }
        names |= given
        used |= set(given.values())
        rest = [path for path in rest if path not in given]
    for path in rest:
        names[path] = ".".join(path)
    return names


def _last(path: tuple[str, ...]) -> str:
    return path[-1]


def _with_part(path: tuple[str, ...]) -> str:
    return f"{path[0]}_{path[-1]}"


# --------------------------------------------------------------------------------------- identity
def _decides(spec: type[RunSpec], path: tuple[str, ...]) -> bool:
    """Return whether another value of a setting makes another identity, or it is a part's name."""
    parts = _parts(spec.model_fields[path[0]].annotation)
    if len(path) == 2 and any(path[1] == _head(part) for part in parts):
        return True
    for chosen in _chains(spec, path):
        one, other = (_sample(spec, path, chosen, k) for k in (0, 1))
        if one.identity() != other.identity():
            return True
    return False


def _chains(part: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[type[BaseModel], ...]]:
    """Yield, for each way to reach the end of a path, the variants of parts on it."""
    if path[0] not in part.model_fields:
        return
    if len(path) == 1:
        yield (part,)
        return
    for inner in _parts(part.model_fields[path[0]].annotation):
        for rest in _chains(inner, path[1:]):
            yield (part, *rest)


def _sample(
    part: type[BaseModel],
    path: tuple[str, ...],
    chosen: Sequence[type[BaseModel]],
    which: int,
) -> Any:
    """Return an instance without validation, of which the field at ``path`` has value ``which``."""
    fields: dict[str, Any] = {}
    for name, field in part.model_fields.items():
        on_path = path[:1] == (name,)
        if on_path and len(path) > 1:
            fields[name] = _sample(chosen[1], path[1:], chosen[1:], which)
        elif parts := _parts(field.annotation):
            fields[name] = _sample(parts[0], (), (), 0)
        else:
            fields[name] = _example(field.annotation, which if on_path else 0)
    return part.model_construct(**fields)


def _example(annotation: Any, which: int) -> Any:
    """Return one of two different values that a field could have."""
    one = _members(annotation)[0]
    if get_origin(one) is Literal:
        values = get_args(one)
        return values[min(which, len(values) - 1)]
    if get_origin(one) is tuple:
        inner = [each for each in get_args(one) if each is not Ellipsis]
        return tuple(_example(each, which) for each in inner)
    if get_origin(one) is dict:
        return {"a": str(which)}
    if get_origin(one) is list:
        return [str(which)]
    if one is bool:
        return bool(which)
    return one(which + 1) if one in (int, float) else f"{which}"


# ------------------------------------------------------------------------------------------- runs
def varied(runs: Iterable[RunSpec]) -> list[Setting]:
    """Return the settings, but model, objective, control and seed, that differ between runs of one
    model, objective and control: what a line about a run must also say."""
    firsts: dict[tuple[Scalar, ...], RunSpec] = {}
    found: set[Setting] = set()
    order: tuple[Setting, ...] = ()
    by_part: dict[str, list[Setting]] = {}
    compared: set[tuple[str, int, int]] = set()
    # Seeds make most of thousands of runs, and differ in nothing that is asked here.
    distinct: dict[tuple[object, ...], RunSpec] = {}
    for run in (runs := list(runs)):  # kept: shared parts are known by their identity
        distinct.setdefault(run.but_for_the_seed(), run)
    for run in distinct.values():
        if not order:
            order = condition_settings(type(run))
            heads = [one for one in order if one.name in HEADS]
            for one in order:
                by_part.setdefault(one.path[0], []).append(one)
        first = firsts.setdefault(tuple(head.value(run) for head in heads), run)
        if first is run:
            continue
        for part, settings in by_part.items():
            mine, other = getattr(run, part), getattr(first, part)
            pair = (part, id(mine), id(other))
            if mine is other or pair in compared:
                continue
            compared.add(pair)
            if mine != other:
                found |= {one for one in settings if one.value(run) != one.value(first)}
    return [one for one in order if one in found]


class RunLabels:
    """A line for a run, when it is asked for: what it is, and what tells it from others."""

    def __init__(self, runs: Sequence[RunSpec]) -> None:
        """``runs`` are those that it is told from."""
        self._runs = runs

    def __call__(self, run: RunSpec) -> str:
        name, _, seed = run.describe().rpartition(" seed ")
        said = [
            f"{one.name} {text_of(one.value(run))}"
            for one in self._shown
            if one.means_something(run)
        ]
        return " ".join([name, *said, "seed", seed])

    @cached_property
    def _shown(self) -> list[Setting]:
        options = set(control_options())
        return [one for one in varied(self._runs) if one.name not in options]


def run_labels(runs: Sequence[RunSpec]) -> dict[str, str]:
    """Return the line of each run by its id; see ``RunLabels``."""
    label = RunLabels(runs)
    return {run.run_id: label(run) for run in runs}


def text_of(value: Scalar) -> str:
    """Return a value of a setting for a person; a digest by its first twelve digits."""
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return number_text(value)
    text = str(value)
    whole = len(text) >= 40 and all(c in "0123456789abcdef" for c in text)
    return text[:12] if whole else text
