"""How far fine-tuning asks for something else than pretraining did, before any training.

Definition ("Profile", objective_distance): the distance between the mean gradient of the
pretraining objective on the probe's text and that of the fine-tuning objective on its own data, at
initialisation, both measured. Beside it, as ``common``, the distance on one text, since objective
and data differ together: the pretraining objective then reads the text of the fine-tuning data.

No example is on both sides: of the fine-tuning data one half of the rows is the fine-tuning
objective's, and whatever else reads that data has the other half. Gradients are in float32, without
dropout; a new head is initialised from the probe's seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sweeps.errors import Impossible, UserError
from sweeps.sources.model_folder import no_mask_token
from sweeps.spec import OBJECTIVE_DEFAULTS, DataSource, Objective, RunSpec
from workers.data.array_file import Arrays
from workers.data.datasets import load_rows
from workers.data.token_cache import objective_arrays, require_declared
from workers.depth.stacks import own_parameters
from workers.distance.distance_estimate import Products, estimate
from workers.distance.gradient_groups import MOST_BATCHES, GradientGroups, examples_of
from workers.distance.row_halves import (
    Half,
    Numbers,
    Rows,
    characters,
    dealt,
    stretches_of,
    taken,
    text_of,
)
from workers.models.fit import require_fit, require_known_tokens
from workers.models.pretrained import PretrainedModel
from workers.objectives.registry import build_objective

# Of batches on each side; so many batches are begun with, one a group.
GROUPS = 8
# The roles of an objective that reads text as such, packed.
PLAIN_TEXT = ("text",)


@dataclass(frozen=True)
class _Side:
    """What one side reads: an objective and which rows of its data.

    ``texts_of`` is another objective, whose rows are read as plain text.
    """

    name: str
    objective: Objective
    half: Half
    texts_of: Objective | None = None

    @property
    def data(self) -> DataSource:
        return self.objective.data

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles whose columns it reads."""
        return build_objective(self.texts_of or self.objective).roles


class _Reader:
    """Cuts what a side reads into the arrays of groups.

    Plain text is packed group by group. Rows of other objectives are examples: what the runs train
    on is cut as it is, since a part of it may lack a label.
    """

    def __init__(self, side: _Side, rows: Rows, run: RunSpec, tokenizer: Any, cache: Path) -> None:
        self.side, self.objective = side, build_objective(side.objective)
        self._tokenizer, self._length, self._batch = tokenizer, run.sequence_length, run.batch_size
        self.rows = rows
        self._arrays: Arrays | None = None
        if self.objective.roles != PLAIN_TEXT:
            with _of_what_is_declared(side.data.label):
                self._arrays = objective_arrays(self.objective, tokenizer, self._length, cache)
        examples = MOST_BATCHES * run.batch_size
        self._stretches = stretches_of(self.rows, side.half, run.seed, examples, self._length)
        # Packed text is cut anew; of examples, stretches have as many, but for one.
        packed = self._arrays is None
        self._sizes = [
            characters(taken(self.rows, numbers)) if packed else 1 for numbers in self._stretches
        ]

    def groups(self, count: int) -> list[Arrays]:
        """Return the arrays of so many groups; raise _TooFew where one has not one batch."""
        found = []
        for numbers in dealt(self._stretches, self._sizes, count):
            if not len(numbers):
                raise _TooFew("it has too few rows to be cut")
            try:
                arrays = self._cut(numbers)
            except UserError as error:  # often of so little text that not one sequence comes of it
                raise _TooFew(str(error)) from error
            if (examples := examples_of(arrays)) < self._batch:
                raise _TooFew(f"{examples} sequences are fewer than a batch of {self._batch}")
            found.append(arrays)
        return found

    def _cut(self, numbers: Numbers) -> Arrays:
        if self._arrays is not None:
            whole = examples_of(self._arrays)
            return {
                name: array[numbers] if len(array) == whole else array
                for name, array in self._arrays.items()
            }
        rows = taken(self.rows, numbers)
        if self.side.texts_of:
            rows = {"text": text_of(rows)}
        return self.objective.tokenise(self._tokenizer, rows, self._length)


class ObjectiveDistance:
    """The measurement of one model, objective and probe at one batch size and length."""

    def __init__(
        self, run: RunSpec, pretrained: PretrainedModel, cache: Path, device: torch.device
    ) -> None:
        """``pretrained`` has its output head, and only its blocks have gradients from now on.

        Raises Impossible where model and data, as they are, leave nothing to measure.
        """
        self._cache, self._device, self._pretrained = cache, device, pretrained
        # Of a batch and of new parameters, the seed is the probe's: runs share the measurement.
        self._run = run.model_copy(update={"seed": run.probe.seed})
        kind = run.model.source.pretraining
        with _of_what_is_declared("objective distance"):
            require_fit(run, pretrained)
            if kind == "mlm" and pretrained.tokenizer.mask_token_id is None:
                raise no_mask_token(run.model.name)
        # Other gradients are not asked for, and need not be held.
        inside = {id(p) for parameters in own_parameters(pretrained.stacks) for p in parameters}
        for parameter in pretrained.language_model.parameters():
            parameter.requires_grad_(id(parameter) in inside)
        options = OBJECTIVE_DEFAULTS[kind]
        common = Objective(kind=kind, data=run.objective.data, **options)
        pretraining = Objective(kind=kind, data=run.probe.data, **options)
        self._sides = [
            _Side("fine-tuning", run.objective, "second"),
            _Side("common", common, "first", texts_of=run.objective),
        ]
        one = _content(run.probe.data) == _content(run.objective.data)
        roles = build_objective(run.objective).roles
        if not one or _texts(run.probe.data, PLAIN_TEXT) != _texts(run.objective.data, roles):
            # Of rows that both read, the probe's text is that of the half which is not trained on.
            self._sides.append(_Side("pretraining", pretraining, "first" if one else "all"))
        self._found: dict[str, Any] = {}

    def measure(self) -> Iterator[int]:
        """Measure; yield how many batches have been read, after each one."""
        sides, read = self._grouped(), 0
        for side in sides:
            while not side.known:
                for _ in side.grow():
                    read += 1
                    yield read
        fine_tuning, common, pretraining = (*sides, sides[1])[:3]
        on_one_text = _estimated(common, fine_tuning)
        own = on_one_text if pretraining is common else _estimated(pretraining, fine_tuning)
        groups = len(fine_tuning.means())
        self._found = {**own, "common": on_one_text, "groups": groups}

    def result(self) -> dict[str, Any]:
        """Return what is recorded, once ``measure`` has ended."""
        return self._found

    def _grouped(self) -> list[GradientGroups]:
        """Return the sides in the most groups, up to ``GROUPS``, of which each has a batch."""
        run, tokenizer = self._run, self._pretrained.tokenizer
        readers: list[_Reader] = []
        for side in self._sides:
            # Two sides may read the same rows: they are loaded once.
            alike = (
                one for one in readers if (one.side.data, one.side.roles) == (side.data, side.roles)
            )
            rows = next((one.rows for one in alike), None) or _rows_of(side)
            readers.append(_Reader(side, rows, run, tokenizer, self._cache))
        why = ""
        for count in range(GROUPS, 1, -1):
            try:
                cut = [reader.groups(count) for reader in readers]
            except _TooFew as error:
                why = str(error)
                continue
            return [
                self._gradients(reader, arrays) for reader, arrays in zip(readers, cut, strict=True)
            ]
        sides = " or ".join(dict.fromkeys(side.data.label for side in self._sides))
        raise Impossible(
            f"half of the text of {sides} does not give two groups of one batch each: {why}"
        )

    def _gradients(self, reader: _Reader, arrays: list[Arrays]) -> GradientGroups:
        name, objective = self._run.model.name, reader.objective
        with _of_what_is_declared(reader.side.data.label):
            highest = max(objective.highest_token(each) for each in arrays)
            needs_head = objective.needs_head
            require_known_tokens(name, self._pretrained, highest, needs_head=needs_head)
        return GradientGroups(
            reader.side.name, objective, arrays, self._run, self._pretrained, self._device
        )


def _rows_of(side: _Side) -> Rows:
    require_declared(side.data)
    names = (side.texts_of or side.objective).label_names
    return load_rows(side.data, side.roles, names)


class _TooFew(Exception):
    """A group has not one batch, and why."""


@contextmanager
def _of_what_is_declared(what: str) -> Iterator[None]:
    """Take a mistake meanwhile for what it is: one of a model and data that are as declared."""
    try:
        yield
    except UserError as error:
        raise Impossible(f"{what}: {error}") from error


def _estimated(reference: GradientGroups, current: GradientGroups) -> dict[str, Any]:
    found = estimate(Products.of(reference.means(), current.means()))
    return {
        "distance": found.distance,
        "low": found.low,
        "high": found.high,
        "noisy": found.noisy,
        "cosines": found.cosines,
        # Of the pretraining objective, then of the fine-tuning one.
        "reliability": [_number(value) for value in found.reliability],
        "batches": [reference.batches, current.batches],
        "text_ended": [reference.text_ended, current.text_ended],
    }


def _number(value: float) -> float | None:
    return value if value == value else None


def _texts(data: DataSource, roles: Sequence[str]) -> list[str]:
    """Return the columns in which the texts of some roles are."""
    columns = getattr(data, "columns", {})
    return [columns.get(role, role) for role in roles if role != "label"]


def _content(data: DataSource) -> dict[str, Any]:
    """Return what rows a source has, whichever of its columns are read."""
    identity = data.identity()
    identity.pop("columns", None)
    return identity
