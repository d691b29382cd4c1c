"""What a stack is: the blocks a model's hidden state passes through, call by call.

``workers.depth.finding`` finds them in a forward pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from sweeps.errors import Impossible
from sweeps.spec.training.block_ranges import BlockRange


class UngroupedParameters(Impossible):
    """What of a model no rule places; one line that names it."""


class NoStateAToken(UngroupedParameters):
    """A block does not work on one state a token; ``works_on`` is how many it works on, if few."""

    def __init__(self, message: str, works_on: int | None) -> None:
        super().__init__(message)
        self.works_on = works_on


@dataclass(frozen=True, eq=False)
class Stack:
    """Blocks in forward order, each once, and how a forward pass runs through them.

    ``name`` is None where a model has one stack. ``path`` is the dotted path of the list of blocks,
    or of the first of several. ``calls`` has, of each call in forward order, the index of the
    block. ``axes`` are those of sequences and of tokens in the hidden states, which a few models
    have elsewhere than in front; ``width`` is the size of all others together (several residual
    streams side by side are one state).
    """

    name: str | None
    path: str
    blocks: tuple[nn.Module, ...]
    calls: tuple[int, ...]
    width: int
    axes: tuple[int, int] = (0, 1)

    @property
    def depth(self) -> int:
        """How many depth positions there are: calls in one forward pass."""
        return len(self.calls)

    def positions(self) -> tuple[Position, ...]:
        """Return the depth positions of hidden states: what enters the stack, then each call."""
        times: dict[int, int] = {}
        found = [Position(self.name, 0, self.depth, 0, 0, None)]
        for layer, index in enumerate(self.calls, start=1):
            iteration = times.get(index, 0)
            times[index] = iteration + 1
            kind = type(self.blocks[index]).__name__
            found.append(Position(self.name, layer, self.depth, index + 1, iteration, kind))
        return tuple(found)


@dataclass(frozen=True)
class Position:
    """Where in a stack a hidden state is: ``layer`` of ``layers`` calls, after which block.

    ``block`` is the number of the distinct block, 0 for what enters the stack; ``iteration`` counts
    from 0 how often that block ran before in the same forward pass.
    """

    stack: str | None
    layer: int
    layers: int
    block: int
    iteration: int
    block_class: str | None

    @property
    def depth(self) -> float:
        return self.layer / self.layers

    @property
    def label(self) -> str:
        """Return what a message calls it."""
        return f"{self.stack} layer {self.layer}" if self.stack else f"layer {self.layer}"


def positions(stacks: Iterable[Stack]) -> tuple[Position, ...]:
    """Return the positions of all stacks, one after another."""
    return tuple(position for stack in stacks for position in stack.positions())


def distinct_blocks(stacks: Iterable[Stack]) -> tuple[nn.Module, ...]:
    """Return the blocks of all stacks, each once, in forward order."""
    return tuple(block for stack in stacks for block in stack.blocks)


def own_parameters(stacks: Iterable[Stack]) -> list[list[nn.Parameter]]:
    """Return the parameters of each distinct block that has any to itself; one that several blocks
    share is none of theirs."""
    held = [list(dict.fromkeys(block.parameters())) for block in distinct_blocks(stacks)]
    times = Counter(id(parameter) for parameters in held for parameter in parameters)
    own = [[p for p in parameters if times[id(p)] == 1] for parameters in held]
    return [parameters for parameters in own if parameters]


def in_twin(stacks: Iterable[Stack], module: nn.Module, twin: nn.Module) -> tuple[Stack, ...]:
    """Return the stacks of ``twin``, a copy of ``module`` that has the same module names."""
    if twin is module:
        return tuple(stacks)
    names = {id(part): name for name, part in module.named_modules()}
    return tuple(
        replace(stack, blocks=tuple(twin.get_submodule(names[id(b)]) for b in stack.blocks))
        for stack in stacks
    )


def blocks_in(named: BlockRange, stacks: Sequence[Stack]) -> set[tuple[int, int]]:
    """Return the blocks that a setting names and the model has, each by the number of its stack and
    its own in it, from 0."""
    return {
        (s, b)
        for s, stack in enumerate(stacks)
        if named.stack in (None, stack.name)
        for b in range(len(stack.blocks))
        if named.first <= b + 1 <= named.last
    }


def ranges_of(stacks: Iterable[Stack]) -> list[str]:
    """Return what a setting calls all blocks of each stack."""
    return [
        f"{stack.name + ' ' if stack.name else ''}blocks 1-{len(stack.blocks)}" for stack in stacks
    ]
