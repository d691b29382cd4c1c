"""What ZeRO cuts of a rank's memory: the part that no trace of one process shows.

P elements that are trained in R ranks, w bytes of a number where the model computes (4, and 2 in
bf16). "cut" divides by R from the ZeRO stage named. As DeepSpeed 0.19 allocates it, seen on two
ranks at every stage (``tests/orchestrator/sizing/measured/test_zero_measured.py``).

===========  ================================================================================
weights      w·P, cut from stage 3
masters      4·P, cut, from stage 1 or in bf16; in CPU memory when offloaded
moments      4·P for each number that the optimizer keeps of a parameter (2 for AdamW), cut from
             stage 1; in CPU memory when offloaded
gradients    w·P; at stage 2 in bf16 4·P, cut, on the GPU also where the optimizer is offloaded;
             in float32 whole parameters, for each of which a rank has any part, and twice where a
             step has several micro-batches; at stage 3 4·P, cut, with the optimizer when offloaded
gathered     stage 3: w · what may be whole at once, and what is fetched at once
messages     two buffers between ranks; the pinned ones of offloading
scratch      one update of the largest part of a layer, or of a slab
===========  ================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.spec import Execution

# Elements: those of a message (as the engine sets it), those that DeepSpeed has whole at once at
# stage 3, and those it fetches at once or reduces at stage 0.
BUCKET = 50_000_000
LIVE = 1_000_000_000
FETCHED = 50_000_000
REDUCED = 500_000_000
# Elements of an update on a GPU.
SLAB = 1 << 26


@dataclass(frozen=True)
class Sizes:
    """Elements of each parameter, group by group, and of those that are not trained; ``kept`` is
    how many numbers the optimizer keeps of each that is."""

    groups: tuple[tuple[float, ...], ...]
    frozen: float = 0.0
    kept: int = 2

    @property
    def trained(self) -> float:
        return sum(map(sum, self.groups))

    @property
    def parameters(self) -> float:
        return self.trained + self.frozen

    @property
    def largest(self) -> float:
        return max(map(sum, self.groups))

    def touched(self, ranks: int) -> float:
        """Return the elements of all parameters that the rank which has most has any part of."""
        return max(
            sum(_touched(group, ranks, rank) for group in self.groups) for rank in range(ranks)
        )


def _touched(group: tuple[float, ...], ranks: int, rank: int) -> float:
    begin, part = 0.0, sum(group) / ranks
    found = 0.0
    for size in group:
        if begin < (rank + 1) * part and begin + size > rank * part:
            found += size
        begin += size
    return found


@dataclass(frozen=True)
class Passes:
    """Bytes that a rank's passes need beside weights and optimizer: those of training, in a step's
    first micro-batch also with the gradients that come meanwhile, and a probe's. ``several`` says
    that a step has more micro-batches than one."""

    training: float
    with_gradients: float
    probe: float
    several: bool


def phases(
    sizes: Sizes, passes: Passes, bf16: bool, execution: Execution
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Return a rank's bytes by term while it trains on a micro-batch, while it steps, and while it
    measures a probe; ``execution`` is settled."""
    ranks, stage = execution.processes or 1, execution.zero_stage or 0
    word, p = 2 if bf16 else 4, sizes.trained
    cut = p / ranks if stage >= 1 else p
    state = {
        "weights": word * ((p / ranks if stage == 3 else p) + sizes.frozen),
        "masters": 4 * cut if bf16 or stage >= 1 else 0.0,
        "moments": 4 * sizes.kept * cut,
        "scratch": 4 * min(SLAB, sizes.largest / (ranks if stage >= 1 else 1)),
    }
    if ranks > 1 or execution.offload != "none":
        state["messages"] = 2.0 * BUCKET * word if stage >= 1 else 0.0
    gradients, stepping = _gradients(sizes, bf16, execution, passes.several)
    if execution.offload != "none":
        for name in ("masters", "moments", "scratch"):
            state.pop(name)
        if stage == 3:
            gradients = stepping = 0.0
    if execution.offload == "parameters":
        state["weights"] = 0.0
    gathered = 0.0
    if stage == 3:
        gathered = word * (min(p, LIVE) + min(p, FETCHED))
    needed = passes.training
    if not passes.several and (stage <= 1 or (stage == 2 and bf16)):
        # Gradients come as activations go.
        needed, gradients = max(passes.with_gradients, gradients), 0.0
    training = {
        **state,
        "gradients": gradients,
        "gathered": gathered,
        "activations": needed,
    }
    # A probe's blocks are gathered one by one, in float32.
    probing = {**state, "probe": passes.probe + 4 * sizes.largest}
    return training, {**state, "gradients": stepping}, probing


def _gradients(
    sizes: Sizes, bf16: bool, execution: Execution, several: bool
) -> tuple[float, float]:
    """Return the bytes of gradients during passes, and during a step."""
    ranks, stage = execution.processes or 1, execution.zero_stage or 0
    word, p = 2 if bf16 else 4, sizes.trained
    if stage == 0:
        again = 4 * p if bf16 else 4 * min(p, REDUCED)
        return word * p, word * p + (again if bf16 or ranks > 1 else 0.0)
    if stage == 1:
        return word * p, word * (p + sizes.touched(ranks))
    if stage == 2 and not bf16:
        touched = 4 * sizes.touched(ranks)
        return touched * (2 if several else 1), touched + 4 * p / ranks
    return 4 * p / ranks, 4 * p / ranks


def later(sizes: Sizes, passes: Passes, bf16: bool, execution: Execution) -> float:
    """Return a rank's bytes that are allocated after the fullest moment of its passes, beside holes
    that are too small for them: gradients at stage 2, which come while activations go."""
    comes = execution.zero_stage == 2 and bf16 and not passes.several
    return 4 * sizes.trained / (execution.processes or 1) if comes else 0.0


def offloaded(sizes: Sizes, bf16: bool, execution: Execution) -> float:
    """Return a rank's bytes in the machine's memory of what is not on the GPU.

    What DeepSpeed pins it takes layer by layer from torch's pinned allocator, which rounds each to
    a power of two: masters, gradients, and in bf16 a copy of the weights. Moments are not pinned.
    """
    if execution.offload == "none":
        return 0.0
    ranks = execution.processes or 1
    parts = [sum(group) / ranks for group in sizes.groups]
    pinned = 2 * sum(_power_of_two(4 * part) for part in parts)
    if bf16:
        pinned += sum(_power_of_two(2 * part) for part in parts)
    if execution.offload == "parameters":
        pinned += (2 if bf16 else 4) * sizes.parameters / ranks
    return pinned + 4 * sizes.kept * sum(parts)


def _power_of_two(size: float) -> float:
    return float(1 << max(0, int(size) - 1).bit_length())
