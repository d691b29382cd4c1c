"""One forward pass seen through its autograd graph: which modules ran when, and what fed what.

Every node of the graph has the number of its place in the forward pass, so a module's call is an
interval of numbers, and a parameter is used where the nodes that consume it lie. No value is read:
the pass may run on real, meta or fake tensors alike.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

# What a block is given first, where it is given it by name.
STREAM = "hidden_states"
# The parts of an output that a loss is taken from, the first that is there.
RESULTS = ("loss", "logits", "last_hidden_state")


@dataclass
class Call:
    """One call of a module: its number in the forward pass, its interval of node numbers (empty
    where no gradient flows), and the hidden state it took and gave.

    ``taken`` and ``given`` are nodes of the graph, None where no gradient flows; ``entered`` and
    ``shape`` are the shapes of the two states, empty where there was none.
    """

    module: nn.Module
    number: int
    began: int
    ended: int = -1
    taken: Any = None
    given: Any = None
    shape: tuple[int, ...] = ()
    entered: tuple[int, ...] = ()


def entering(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the hidden state a block is called with, or None."""
    found = [args[0] if args else kwargs.get(STREAM), *args, *kwargs.values()]
    return next((each for each in found if _is_state(each)), None)


def leaving(output: Any) -> Any:
    """Return the hidden state a block gives: its output, or the first of several."""
    if _is_state(output):
        return output
    if isinstance(output, dict):
        output = [output[name] for name in (STREAM, *output) if name in output]
    if isinstance(output, (tuple, list)):
        return next((each for each in output if _is_state(each)), None)
    return None


def _is_state(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2


class Observation:
    """A forward pass of a model: the calls of its modules in order, and its graph."""

    def __init__(self, model: nn.Module, calls: list[Call], outputs: list[Tensor]) -> None:
        self.model = model
        self.calls = calls
        self._nodes = _in_order(
            [t.grad_fn for t in outputs] + [n for c in calls for n in (c.taken, c.given)]
        )
        self._roots = [t.grad_fn for t in outputs if t.grad_fn is not None]
        self.called = {id(call.module) for call in calls}

    def uses(self) -> Iterator[tuple[nn.Parameter, Any]]:
        """Yield (parameter, node that consumes it) for each use that reaches the output."""
        reached = {id(node) for node in _in_order(self._roots)}
        for node in self._nodes:
            if id(node) in reached:
                for parent, _ in node.next_functions:
                    if (variable := getattr(parent, "variable", None)) is not None:
                        yield variable, node
        for root in self._roots:
            if (variable := getattr(root, "variable", None)) is not None:
                yield variable, root

    def depends(self, marks: dict[int, int]) -> dict[int, int]:
        """Return, of each node by id, the bits of the marks (id → bits) it depends on or bears."""
        bits: dict[int, int] = {}
        for node in self._nodes:
            mine = marks.get(id(node), 0)
            for parent, _ in node.next_functions:
                if parent is not None:
                    mine |= bits.get(id(parent), 0)
            bits[id(node)] = mine
        return bits

    def within(self, calls: Sequence[Call]) -> Callable[[Any], int | None]:
        """Return the function from a node to the number of the call that it lies in, or None.

        ``calls`` are in order, and none lies within another.
        """
        starts = [call.began for call in calls]

        def number(node: Any) -> int | None:
            place = place_of(node)
            k = bisect_right(starts, place) - 1
            return k if k >= 0 and place < calls[k].ended else None

        return number

    @property
    def nodes(self) -> Sequence[Any]:
        """All nodes, each after those it depends on."""
        return self._nodes


def place_of(node: Any) -> int:
    """Return the number of a node's place in the forward pass."""
    return int(node._sequence_nr())


def observe(model: nn.Module, forward: Callable[[], Any]) -> Observation:
    """Run ``forward`` once, with gradients of every floating-point parameter, and return it seen.

    Modules that own parameters are followed, and those that hold such modules. Which parameters
    are to be trained is afterwards as it was before.
    """
    calls: list[Call] = []
    followed = [module for module in model.modules() if next(module.parameters(), None) is not None]
    with _followed(followed, calls), _trainable(model.parameters()), torch.enable_grad():
        outputs = _results(forward())
        return Observation(model, [c for c in calls if c.ended >= 0], outputs)


@contextmanager
def _followed(modules: Iterable[nn.Module], calls: list[Call]) -> Iterator[None]:
    running: dict[int, list[Call]] = {}

    def began(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        state = entering(args, kwargs)
        call = Call(module, len(calls), _now())
        if state is not None:
            call.taken, call.entered = state.grad_fn, tuple(state.shape)
        calls.append(call)
        running.setdefault(id(module), []).append(call)

    def ended(module: nn.Module, _: Any, output: Any) -> None:
        call = running[id(module)].pop()
        call.ended = _now()
        state = leaving(output)
        if state is not None:
            call.given, call.shape = state.grad_fn, tuple(state.shape)

    handles: list[Any] = []
    try:
        for module in modules:
            handles.append(module.register_forward_pre_hook(began, with_kwargs=True))
            handles.append(module.register_forward_hook(ended))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _trainable(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    frozen = [p for p in parameters if not p.requires_grad and p.is_floating_point()]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _now() -> int:
    return int(torch._C._autograd._get_sequence_nr())


def _results(output: Any) -> list[Tensor]:
    """Return the tensors a loss would be taken from."""
    for name in RESULTS:
        value = getattr(output, name, None)
        if isinstance(value, Tensor):
            return [value]
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _in_order(roots: Iterable[Any]) -> list[Any]:
    """Return all nodes that lead to the roots, each after those it depends on."""
    seen: set[int] = set()
    order: list[Any] = []
    for root in roots:
        if root is None or id(root) in seen:
            continue
        seen.add(id(root))
        path = [(root, iter(root.next_functions))]
        while path:
            node, parents = path[-1]
            for parent, _ in parents:
                if parent is not None and id(parent) not in seen:
                    seen.add(id(parent))
                    path.append((parent, iter(parent.next_functions)))
                    break
            else:
                order.append(node)
                path.pop()
    return order
