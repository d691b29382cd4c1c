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

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sweeps.errors import Impossible, UserError
from sweeps.sources.model_folder import no_mask_token
from sweeps.spec import DATA_ROLES, OBJECTIVE_DEFAULTS, DataSource, Objective, RunSpec
from workers.data.datasets import Arrays, load_rows
from workers.data.token_cache import require_declared
from workers.models.fit import require_fit, require_known_tokens
from workers.models.pretrained import PretrainedModel
from workers.objectives.objective import TrainingObjective, micro_batches
from workers.objectives.registry import build_objective
from workers.probes.distance_estimate import RELIABLE, Estimate, Products, estimate, reliability
from workers.probes.gradient_sketch import BlockSketch
from workers.probes.row_halves import Half, half_of, text_of

GROUPS = 8
# Of one side: so many are begun with, one a group, and doubled up to so many.
MOST_BATCHES = 256


class Side:
    """The gradients of one objective on one text, in groups of batches that share no example.

    Batches walk through one permutation of the examples, and end where it ends. Where there are
    fewer than ``GROUPS`` of them there are fewer groups.
    """

    def __init__(
        self,
        objective: TrainingObjective,
        arrays: Arrays,
        run: RunSpec,
        pretrained: PretrainedModel,
        device: torch.device,
    ) -> None:
        self._objective, self._arrays, self._run, self._device = objective, arrays, run, device
        self._pretrained = pretrained
        self._sketches = [
            BlockSketch(list(dict.fromkeys(block.parameters())), seed=number)
            for number, block in enumerate(pretrained.blocks)
        ]
        self.available = _examples(arrays) // run.batch_size
        self.groups = min(GROUPS, self.available)
        self._sums: list[list[Tensor]] = []
        self._a_group = 0
        self._reliability = 0.0

    @property
    def batches(self) -> int:
        """How many have been read."""
        return self._a_group * self.groups

    @property
    def reliable(self) -> bool:
        """Whether halves of the batches agree well enough."""
        return self._reliability >= RELIABLE

    @property
    def full(self) -> bool:
        """Whether no batch may be added: the text ends, or there are as many as may be."""
        return self._a_group >= min(MOST_BATCHES, self.available) // self.groups

    @property
    def text_ended(self) -> bool:
        """Whether the text ended before the gradient was known well enough."""
        return not self.reliable and self.available < MOST_BATCHES

    def use(self, groups: int) -> None:
        """Take so many groups, at most as many as there are; before the first batch is read."""
        self.groups = groups

    def grow(self) -> Iterator[int]:
        """Double the batches of every group, as far as there are any; yield after each one."""
        most = min(MOST_BATCHES, self.available) // self.groups
        target = min(max(1, 2 * self._a_group), most)
        torch.manual_seed(self._run.seed)
        model = self._objective.build_model(self._pretrained).to(self._device)
        model.eval()
        for group in range(self.groups):
            model.zero_grad()
            for k in range(self._a_group, target):
                self._add_gradient(model, k * self.groups + group + 1)
                yield self.batches
            added = [sketch.of_gradients() for sketch in self._sketches]
            if len(self._sums) <= group:
                self._sums.append(added)
            else:
                for total, more in zip(self._sums[group], added, strict=True):
                    total += more
        model.zero_grad()
        self._a_group = target
        vectors = self.means()
        self._reliability = reliability(Products.of(vectors, vectors).aa)

    def means(self) -> list[list[Tensor]]:
        """Return the mean gradient of each group and block, as sketches."""
        return [[total / self._a_group for total in group] for group in self._sums]

    def _add_gradient(self, model: nn.Module, step: int) -> None:
        """Add the gradient of a batch's mean loss.

        It is cut into micro-batches where its loss is a sum over examples: one that compares them
        with each other, as a contrastive loss does, has its own way to accumulate.
        """
        batch = self._objective.batch(self._arrays, self._run, step)
        targets = max(1, self._objective.targets(batch))
        apart = type(self._objective).accumulate is TrainingObjective.accumulate
        size = self._run.micro_batch_size if apart else self._run.batch_size
        for part in micro_batches(batch, size):
            here = {name: tensor.to(self._device) for name, tensor in part.items()}
            loss = self._objective.loss_sum(model, here) / targets
            loss.backward()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class _Text:
    """What one side reads: an objective and which rows of its data."""

    objective: Objective
    half: Half
    # Of another objective, whose rows are read as plain text.
    texts_of: Objective | None = None


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
        inside = {id(parameter) for parameter in pretrained.blocks.parameters()}
        for parameter in pretrained.language_model.parameters():
            parameter.requires_grad_(id(parameter) in inside)
        options = OBJECTIVE_DEFAULTS[kind]
        pretraining = Objective(kind=kind, data=run.probe.data, **options)
        on_own_text = Objective(kind=kind, data=run.objective.data, **options)
        self._one_text = _content(run.probe.data) == _content(run.objective.data)
        self._fine_tuning = _Text(run.objective, "second")
        self._common = _Text(on_own_text, "first", texts_of=run.objective)
        self._reference = self._common if self._one_text else _Text(pretraining, "all")
        self._found: dict[str, Any] = {}

    def measure(self) -> Iterator[int]:
        """Measure; yield how many batches have been read, after each one."""
        current = self._side(self._fine_tuning)
        reference = self._side(self._reference)
        common = None if self._one_text else self._side(self._common)
        sides = [side for side in (current, reference, common) if side is not None]
        groups = min(side.groups for side in sides)
        if groups < 2:
            raise Impossible(
                f"objective distance of {self._run.model.name} {self._run.objective.label}: a half"
                f" of the text has fewer than 2 batches of {self._run.batch_size} sequences of"
                f" {self._run.sequence_length} tokens, where 2 are the least; give more text"
            )
        for side in sides:
            side.use(groups)
        read = 0
        for side in sides:
            while not side.full and not (side.batches and side.reliable):
                for _ in side.grow():
                    read += 1
                    yield read
        own = _estimated(reference, current)
        shared = own if common is None else _estimated(common, current)
        self._found = {**own, "common": shared, "groups": groups}

    def result(self) -> dict[str, Any]:
        """Return what is recorded, once ``measure`` has ended."""
        return self._found

    def _side(self, wanted: _Text) -> Side:
        run, objective = self._run, build_objective(wanted.objective)
        data = wanted.objective.data
        require_declared(data)
        read = DATA_ROLES[wanted.texts_of.kind] if wanted.texts_of else objective.roles
        most = MOST_BATCHES * run.batch_size
        rows = half_of(load_rows(data, read), wanted.half, run.seed, most, run.sequence_length)
        if wanted.texts_of:
            rows = {"text": text_of(rows)}
        with _of_what_is_declared(f"{data.label}, {wanted.half} rows"):
            if not next(iter(rows.values())):
                raise UserError("has too few rows to be cut in two")
            arrays = objective.tokenise(self._pretrained.tokenizer, rows, run.sequence_length)
            require_known_tokens(
                run.model.name,
                self._pretrained,
                objective.highest_token(arrays),
                needs_head=objective.needs_head,
            )
        return Side(objective, arrays, run, self._pretrained, self._device)


@contextmanager
def _of_what_is_declared(what: str) -> Iterator[None]:
    """Take a mistake meanwhile for what it is: one of a model and data that are as declared."""
    try:
        yield
    except UserError as error:
        raise Impossible(f"{what}: {error}") from error


def _estimated(reference: Side, current: Side) -> dict[str, Any]:
    found: Estimate = estimate(Products.of(reference.means(), current.means()))
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


def _examples(arrays: Arrays) -> int:
    return min(len(array) for name, array in arrays.items() if name.endswith("input_ids"))


def _content(data: DataSource) -> dict[str, Any]:
    """Return what rows a source has, whichever of its columns are read."""
    identity = data.identity()
    identity.pop("columns", None)
    return identity
