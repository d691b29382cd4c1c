"""Which layer a parameter belongs to: found from where one forward pass uses it.

- A parameter that only one block uses belongs to that block.
- One that is used before the blocks, or by several blocks, belongs to the embedding. So does a tied
  output embedding, a table of relative positions that every block reads, and a transformer that
  several blocks share.
- One that is used between two blocks belongs to the block it leads to (or to the embedding, where
  it leads to several); one that leads to no further block of the stack belongs to the head. What
  stands between an encoder and a decoder (the encoder's final norm) is of the head.

"Before" and "after" are meant of what is made from what: a use is before the blocks where nothing
that a block gave enters it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from workers.depth.observation import Call, Observation
from workers.depth.stacks import Stack


@dataclass(frozen=True)
class Owner:
    """The layer a parameter belongs to: ``block`` is None for the embedding and the head."""

    kind: str
    stack: int | None = None
    block: int | None = None


EMBEDDING, BLOCK, HEAD = "embedding", "block", "head"
OF_EMBEDDING, OF_HEAD = Owner(EMBEDDING), Owner(HEAD)


def owners(observation: Observation, stacks: Sequence[Stack]) -> dict[int, Owner]:
    """Return the owner of each parameter, by id, that reaches the output of the forward pass."""
    places = {
        id(block): (s, b) for s, stack in enumerate(stacks) for b, block in enumerate(stack.blocks)
    }
    places |= _twins(observation, stacks, places)
    calls = [call for call in observation.calls if id(call.module) in places]
    calls = _outer(calls)
    where = observation.within(calls)
    inside: dict[int, set[Owner]] = {}
    outside: list[tuple[int, Any]] = []
    for parameter, node in observation.uses():
        found = inside.setdefault(id(parameter), set())
        k = where(node)
        if k is None:
            outside.append((id(parameter), node))
        else:
            found.add(Owner(BLOCK, *places[id(calls[k].module)]))
    for parameter_id, owner in _around(observation, calls, places, outside):
        inside[parameter_id].add(owner)
    return {parameter: _decided(found) for parameter, found in inside.items() if found}


def _decided(found: set[Owner]) -> Owner:
    blocks = {owner for owner in found if owner.kind == BLOCK}
    if OF_EMBEDDING in found or len(blocks) > 1:
        return OF_EMBEDDING
    return blocks.pop() if blocks else OF_HEAD


def _twins(
    observation: Observation, stacks: Sequence[Stack], places: dict[int, tuple[int, int]]
) -> dict[int, tuple[int, int]]:
    """Return the places of modules that hold the very same parameters as a block."""
    of = {
        frozenset(id(p) for p in block.parameters()): places[id(block)]
        for stack in stacks
        for block in stack.blocks
    }
    of.pop(frozenset(), None)
    return {
        id(call.module): of[key]
        for call in observation.calls
        if id(call.module) not in places
        and (key := frozenset(id(p) for p in call.module.parameters())) in of
    }


def _outer(calls: Sequence[Call]) -> list[Call]:
    """Return the calls that lie in no other one."""
    found: list[Call] = []
    for call in calls:
        if not found or call.began >= found[-1].ended:
            found.append(call)
    return found


def _around(
    observation: Observation,
    calls: Sequence[Call],
    places: dict[int, tuple[int, int]],
    outside: Sequence[tuple[int, Any]],
) -> list[tuple[int, Owner]]:
    """Return the owner of each use that lies in no block."""
    graph = _Around(observation, calls)
    found: list[tuple[int, Owner]] = []
    for parameter, node in outside:
        meetings = graph.meetings(node)
        if meetings is None:
            found.append((parameter, OF_EMBEDDING))
            continue
        for meeting in meetings:
            before, after = graph.before(meeting), graph.after(meeting)
            found.append((parameter, _owner_of_use(before, after, calls, places)))
        if not meetings:
            found.append((parameter, OF_HEAD))
    return found


class _Around:
    """What lies around the blocks: which calls feed a node there, and which it feeds."""

    def __init__(self, observation: Observation, calls: Sequence[Call]) -> None:
        self._where = observation.within(calls)
        inside = {id(n): k for n in observation.nodes if (k := self._where(n)) is not None}
        self._before = observation.depends({key: 1 << k for key, k in inside.items()})
        self._children: dict[int, list[Any]] = {}
        for node in observation.nodes:
            for parent, _ in node.next_functions:
                if parent is not None:
                    self._children.setdefault(id(parent), []).append(node)
        # Bits of the calls that a node leads to, from the output back.
        self._after: dict[int, int] = {}
        for node in reversed(observation.nodes):
            bits = 1 << inside[id(node)] if id(node) in inside else 0
            for child in self._children.get(id(node), ()):
                bits |= self._after[id(child)]
            self._after[id(node)] = bits

    def meetings(self, node: Any) -> list[Any] | None:
        """Return where what a node makes of parameters alone meets what blocks gave.

        None where it enters a block without having met it: it is then before the blocks.
        """
        found, waiting, seen = [], [node], set()
        while waiting:
            here = waiting.pop()
            if id(here) in seen:
                continue
            seen.add(id(here))
            if self._where(here) is not None:
                return None
            if self._before[id(here)]:
                found.append(here)
            else:
                waiting += self._children.get(id(here), ())
        return found

    def before(self, node: Any) -> list[int]:
        """Return the numbers of the calls that feed a node."""
        return _numbers(self._before[id(node)])

    def after(self, node: Any) -> list[int]:
        """Return the numbers of the calls that a node feeds."""
        return _numbers(self._after[id(node)])


def _owner_of_use(
    before: Sequence[int],
    after: Sequence[int],
    calls: Sequence[Call],
    places: dict[int, tuple[int, int]],
) -> Owner:
    stack = places[id(calls[before[-1]].module)][0]
    following = [k for k in after if places[id(calls[k].module)][0] == stack]
    return Owner(BLOCK, *places[id(calls[following[0]].module)]) if following else OF_HEAD


def _numbers(bits: int) -> list[int]:
    """Return the numbers of the bits that are set, in order."""
    found = []
    while bits:
        low = bits & -bits
        found.append(low.bit_length() - 1)
        bits ^= low
    return found


def never_called_siblings(
    model: nn.Module, called: set[int], stacks: Sequence[Stack]
) -> dict[int, tuple[nn.Module, str]]:
    """Return, by id of each parameter of a module that did not run, a like module that did.

    They are alternatives that data choose between, such as the experts of a router: what one
    forward pass does not use, another will. The value is that module, and the parameter's name in
    it.
    """
    found: dict[int, tuple[nn.Module, str]] = {}
    blocks = {id(block) for stack in stacks for block in stack.blocks}
    for holder in model.modules():
        members = list(holder.children())
        alternatives = isinstance(holder, (nn.ModuleList, nn.ModuleDict))
        if not alternatives or any(id(member) in blocks for member in members):
            continue
        for member in members:
            if id(member) in called:
                continue
            like = [m for m in members if type(m) is type(member) and id(m) in called]
            if like:
                for name, parameter in member.named_parameters():
                    found.setdefault(id(parameter), (like[0], name))
    return found
