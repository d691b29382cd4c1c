"""One run, complete, and the identity it has."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from operator import itemgetter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from sweeps.spec.data_source import DataSource
from sweeps.spec.execution import Execution
from sweeps.spec.frozen import Frozen, Steps, content_id
from sweeps.spec.model_source import ModelSpec
from sweeps.spec.objective import ANSWERING, COMPARING, PRETRAINING_OBJECTIVES, Objective
from sweeps.spec.probe import Probe
from sweeps.spec.training.adapter import Adapter, Lora, NoAdapter
from sweeps.spec.training.control import Control, EqualStep
from sweeps.spec.training.evaluation import Evaluation, Stop
from sweeps.spec.training.optimizer import RULES, Optimizer
from sweeps.spec.training.recorded import RecordedSteps
from sweeps.spec.training.refusal import Judge
from sweeps.spec.training.selection import All, Selection, candidates_of
from sweeps.spec.training.tuned import Tuned

# Objectives that train a decoder with the head it writes with.
GENERATING = ("clm", *ANSWERING)
# Sets of prompts are datasets of a run under this and their name.
PROMPTS = "prompts "


class RunSpec(Frozen):
    """One fine-tuning run, complete: nothing downstream defaults or guesses."""

    not_in_identity: ClassVar[frozenset[str]] = frozenset({"execution"})

    model: ModelSpec
    objective: Objective
    control: Control
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    steps: Steps
    batch_size: Annotated[int, Field(ge=1)]
    sequence_length: Annotated[int, Field(ge=4)]
    optimizer: Optimizer
    adapter: Adapter = NoAdapter()
    selection: Selection = All()
    precision: Literal["fp32", "bf16"] = "fp32"
    dropout: bool = Field(
        False,
        description="Train with the model's own dropout, drawn by (seed, step, micro-batch, rank):"
        " the result depends on how a batch is cut, which is no part of the identity.",
    )
    record_every: Steps = Field(
        1,
        description="Measure and record what steps did (loss, norms, coefficients) every so many"
        " steps, besides the first and those that are probed or evaluated after.",
    )
    probe: Probe
    evaluation: Evaluation | None = None
    stop: Stop | None = None
    tuned: Tuned | None = None
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _cross_fields(self) -> RunSpec:
        kind, pretraining = self.objective.kind, self.model.source.pretraining
        if kind in PRETRAINING_OBJECTIVES and kind != pretraining:
            raise ValueError(
                f"objective {kind} does not fit model {self.model.name}, which was pretrained with"
                f" {pretraining}: use objective {pretraining} or pretraining"
            )
        if kind in ANSWERING and pretraining != "clm":
            raise ValueError(
                f"objective {kind} is for decoders, and model {self.model.name} was pretrained with"
                f" {pretraining}: use another objective, or a model pretrained with clm"
            )
        if self.control.kind == "layer_clip" and self.optimizer.max_grad_norm is not None:
            raise ValueError(
                "layer_clip and max_grad_norm both clip the gradient: one owner, remove one"
            )
        if isinstance(self.adapter, Lora) and self.model.source.freeze:
            raise ValueError(
                f"an adapter and freeze of model {self.model.name} both say what is trained: name"
                " the adapter's layers, and leave out freeze"
            )
        control = self.control
        if isinstance(self.adapter, Lora) and isinstance(control, EqualStep) and control.relative:
            raise ValueError(
                f"equal_step with unit matrix and target {control.target} does not go with an"
                " adapter, half of whose matrices begin at zero: their first steps are as large as"
                " they are, and set the pace of all; use target learning_rate or a number, or unit"
                " block"
            )
        self.optimizer.require_steps(self.steps)
        if self.optimizer.whole_matrices and self.execution.settled().engine != "plain":
            shared = [name for name, rule in RULES.items() if not rule.whole_matrices]
            raise ValueError(
                f"optimizer {self.optimizer.rule} needs whole matrices, which DeepSpeed cuts: use"
                f" engine plain, without processes, zero_stage and offload; or {', '.join(shared)}"
            )
        if kind == "contrastive" and self.batch_size < 2:
            raise ValueError("contrastive needs batch_size of at least 2: negatives are in-batch")
        micro = self.execution.micro_batch_size
        if micro is not None and self.batch_size % micro:
            raise ValueError(f"micro_batch_size {micro} must divide batch_size {self.batch_size}")
        ranks = self.execution.processes or 1
        if self.batch_size % ((micro or 1) * ranks):
            raise ValueError(
                f"{ranks} processes must divide batch_size {self.batch_size}"
                + (f" into shares of whole micro-batches of {micro}" if micro else "")
            )
        self._require_selection()
        if self.execution.keep == "best" and self.evaluation is None:
            raise ValueError(
                "keep: best keeps the weights of the lowest evaluation loss: add `evaluation`"
            )
        if self.probe.every is not None and self.probe.every > self.steps:
            raise ValueError(f"probe.every {self.probe.every} is beyond steps {self.steps}")
        if self.record_every > self.steps:
            raise ValueError(
                f"record_every {self.record_every} is beyond steps {self.steps}: lower it, or leave"
                " it out to record each"
            )
        if self.tuned is not None and self.record_every != 1:
            raise ValueError(
                "record_every does nothing for a checkpoint that was trained elsewhere"
            )
        self._require_evaluation()
        return self

    def _require_selection(self) -> None:
        """Refuse a selection of what cannot be selected from, or that would be another one."""
        rule, kind = self.selection.kind, self.objective.kind
        if isinstance(self.selection, All):
            return
        candidates_of(self.selection, self.batch_size)
        if kind in COMPARING:
            raise ValueError(
                f"selection {rule} needs a loss of each example, and {kind} has one of examples"
                " compared with each other: use selection all, or another objective"
            )
        if rule == "length_matched" and self.objective.packed:
            raise ValueError(
                f"selection length_matched is random for objective {self.objective.label}, whose"
                " examples are all cut to one length: use selection random"
            )

    def _require_evaluation(self) -> None:
        """Refuse an evaluation, or a stop by it, that never comes, and prompts that cannot be
        answered."""
        refusal = self.evaluation.refusal if self.evaluation else None
        if refusal is not None and self.objective.kind not in GENERATING:
            raise ValueError(
                f"evaluation.refusal has the model write answers, which objective"
                f" {self.objective.kind} does not keep it able to: use {', '.join(GENERATING)}"
            )
        every = self.evaluation.every if self.evaluation else None
        if every is not None and every > self.steps:
            raise ValueError(f"evaluation.every {every} is beyond steps {self.steps}")
        if self.stop is None:
            return
        if self.evaluation is None:
            raise ValueError("stop: no_improvement is of an evaluation: add one, `evaluation:`")
        times = len(self.evaluation_steps) - 1
        if times <= self.stop.over:
            raise ValueError(
                f"stop: no_improvement over {self.stop.over} never ends a run that is evaluated"
                f" {times} times after step 0: evaluate more often (`evaluation: {{every: …}}`)"
            )

    def identity(self) -> dict[str, Any]:
        """Return what decides the result; a probe that comes at the last step only is the default,
        however its interval says so, and so are an evaluation that comes with the probes and a
        record of every step."""
        found = super().identity()
        if 1 < self.record_every <= self.steps and self.recorded_steps.all:
            del found["record_every"]
        if self.probe.every == self.steps:
            found["probe"].pop("every", None)
        every = self.evaluation.every if self.evaluation is not None else None
        if every and every <= self.steps and self._evaluated(every) == self._evaluated(None):
            del found["evaluation"]["every"]
        return found

    @cached_property
    def run_id(self) -> str:
        """First 12 hex digits of SHA-256 over the canonical JSON of the identity."""
        return content_id(self.identity())

    def model_copy(self, *, update: Any = None, deep: bool = False) -> RunSpec:
        """Return a copy with fields replaced, unvalidated as pydantic's; its run id is its own."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("run_id", None)
        return copy

    def but_for_the_seed(self) -> tuple[object, ...]:
        """Return a key that is the same for runs that share all parts and differ in their seed.

        Runs that are equal but share no parts may have other keys, so it saves work and decides
        nothing; it holds while the runs live.
        """
        values = _all_but_the_seed(type(self))(self.__dict__)
        return tuple([value if type(value) in _PLAIN else id(value) for value in values])

    @property
    def says_what_is_trained(self) -> bool:
        """Whether the settings name layers or matrices that alone are trained, or are not."""
        adapter = self.adapter
        named = isinstance(adapter, Lora) and (adapter.blocks or adapter.targets)
        return bool(self.model.source.freeze or named)

    @property
    def micro_batch_size(self) -> int:
        """Sequences of one forward pass of one process."""
        share = self.batch_size // (self.execution.processes or 1)
        return self.execution.micro_batch_size or share

    @property
    def candidates(self) -> int:
        """Examples that a step reads: those of which its batch is chosen, or its batch."""
        return candidates_of(self.selection, self.batch_size)

    @property
    def probe_steps(self) -> tuple[int, ...]:
        """Steps after which hidden states are compared: every k-th and always the last."""
        every = self.probe.every or self.steps
        return tuple(sorted({*range(every, self.steps + 1, every), self.steps}))

    @property
    def recorded_steps(self) -> RecordedSteps:
        """Steps that have rows in ``steps`` and ``layers``: the first, every k-th, and those with a
        probe or an evaluation, after which a run may end."""
        besides = (*self.probe_steps, *self.evaluation_steps)
        return RecordedSteps(self.steps, self.record_every, besides)

    @property
    def evaluation_steps(self) -> tuple[int, ...]:
        """Steps after which held-out examples are scored, 0 first; none without an evaluation."""
        return () if self.evaluation is None else self._evaluated(self.evaluation.every)

    def _evaluated(self, every: int | None) -> tuple[int, ...]:
        between = range(every, self.steps + 1, every) if every else ()
        return tuple(sorted({0, *self.probe_steps, *between}))

    @property
    def datasets(self) -> dict[str, DataSource]:
        """All that it reads, by what it is to the run: trained, probed and evaluated on, and each
        set of prompts."""
        found = {"dataset": self.objective.data, "probe": self.probe.data}
        if self.evaluation is not None and self.evaluation.data is not None:
            found["evaluation"] = self.evaluation.data
        refusal = self.evaluation.refusal if self.evaluation is not None else None
        for one in refusal.prompts if refusal is not None else ():
            found[f"{PROMPTS}{one.name}"] = one.data
        return found

    @property
    def judges(self) -> tuple[Judge, ...]:
        """The model that judges its answers, where there is one."""
        refusal = self.evaluation.refusal if self.evaluation is not None else None
        return refusal.judge if refusal is not None else ()

    def part_of(self, step: int) -> tuple[int, int]:
        """Return (first − 1, last) of the part that holds ``step``; the spec alone decides it."""
        size = self.execution.part_steps
        start = (step - 1) // size * size
        return start, min(start + size, self.steps)

    def describe(self) -> str:
        control = self.control.kind + (f"({self.control.setting})" if self.control.setting else "")
        return f"{self.model.name} {self.objective.label} {control} seed {self.seed}"


# What is known by its value; all else of a specification by which object it is.
_PLAIN = frozenset((str, int, float, bool, type(None)))


@cache
def _all_but_the_seed(kind: type[RunSpec]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """Return what takes the other fields' values: a sweep asks it of each of thousands of runs."""
    return itemgetter(*(name for name in kind.model_fields if name != "seed"))
