"""A forward pass in which every use of a weight is seen, and what each example gives to it.

Each function of torch that a pass calls comes by here. Where one is given a weight, it is known
what the weight's gradient is made of (``known_uses``), or the weight is spread over the examples
before it meets them elementwise, so that autograd itself keeps them apart. Any other use is told as
unknown, and whoever measures has to take the gradients of that weight one example at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from workers.sample_gradients.weight_uses import WeightUses

# What a tensor is known as, in attributes of its own: made of the examples, or of weights alone.
OF_EXAMPLES, OF_WEIGHTS = "_depthsweep_of_examples", "_depthsweep_of_weights"
# Functions that broadcast their arguments against each other, by name.
ELEMENTWISE = frozenset(
    (
        *("add", "__add__", "__radd__", "__iadd__", "add_", "sub", "__sub__", "__rsub__", "rsub"),
        *("mul", "__mul__", "__rmul__", "__imul__", "mul_", "multiply", "subtract", "divide"),
        *("div", "__truediv__", "__rtruediv__", "true_divide", "maximum", "minimum", "where"),
        *("lerp", "addcmul", "scaled_dot_product_attention"),
    )
)


# Called with the watch, a function and its arguments: returns what the function does, whose use of
# a weight it then watches, or NotImplemented, the function not called.
Known = Callable[["Watch", Any, Any, Any], Any]


class Watch(TorchFunctionMode):
    """Surrounds a forward pass of ``examples`` examples.

    Attributes:
        uses: of each weight that was used, by its number, what is known of it so far; the backward
            pass adds what it comes to.
        unknown: numbers of weights that were used in a way of which nothing is known, or of which
            examples cannot be told apart.
        squares: after ``backward``, the squared norms (B,) float64 by a weight's number.
    """

    def __init__(
        self, weights: Sequence[Tensor], examples: int, known: Mapping[Any, Known]
    ) -> None:
        """``weights`` are the parameters that are watched, their places are their numbers;
        ``known`` are functions whose use of weights is understood."""
        super().__init__()
        self.examples = examples
        self._known = known
        self._of_number = weights
        self._weights = {id(weight): number for number, weight in enumerate(weights)}
        self.uses: dict[int, WeightUses] = {}
        self.unknown: set[int] = set()
        self.squares: dict[int, Tensor] = {}
        # What the backward pass has to reach so that it comes by every use.
        self._ends: list[Tensor] = []
        # What is made of weights alone and met no example yet, with the weights it is made of.
        self._waiting: dict[int, tuple[Tensor, frozenset[int]]] = {}
        # What was made of weights alone and then spread over the examples, with its shape, which
        # ranks that share a weight let go of after the pass, and the copies, (B, …).
        self._spread: list[tuple[Tensor, torch.Size, Tensor]] = []
        # Gradients of what is made of weights, (B, …), and the weights that have to wait for them.
        self._of_values: list[tuple[Tensor, Tensor]] = []
        self._late: set[int] = set()
        self._listening = False
        self._hooks: list[RemovableHandle] = []

    # --------------------------------------------------------------------------------- each call
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        given = list(_tensors((*args, *kwargs.values())))
        weights = [tensor for tensor in given if self.is_of_weights(tensor)]
        if not weights:
            out = func(*args, **kwargs)
            if any(_is_of_examples(tensor) for tensor in given):
                _mark(out, args)
            return out
        known = self._known.get(func)
        out = NotImplemented if known is None else known(self, func, args, kwargs)
        if out is not NotImplemented:
            _mark(out, ())
            return out
        if self._meet_elementwise(func, given):
            return self._spread_over_examples(func, args, kwargs)
        out = func(*args, **kwargs)
        if any(map(self.varies, given)):
            if any(one.requires_grad for one in _tensors((out,))):
                self._not_known(weights)
            _mark(out, args)
        else:
            self._made_of(weights, out)
        return out

    def number(self, tensor: Any) -> int | None:
        """Return the number of a weight; None for anything else."""
        return self._weights.get(id(tensor)) if isinstance(tensor, nn.Parameter) else None

    def rows(self, tensor: Tensor, trailing: int) -> Tensor | None:
        """Return a tensor as (B, T, …) with its last ``trailing`` axes as they are; None where its
        first axis is not the examples', nor all tokens in order of examples."""
        shape, last = tensor.shape, tensor.shape[tensor.dim() - trailing :]
        leading = tensor.dim() - trailing
        if leading == 1 and shape[0] % self.examples == 0:
            return tensor.reshape(self.examples, -1, *last)
        if leading > 1 and shape[0] == self.examples:
            return tensor.reshape(self.examples, -1, *last)
        return None

    def expect(self, number: int, weight: Tensor) -> WeightUses:
        """Return what is known of a weight, of which the backward pass will come to another use."""
        uses = self._of(number, weight.shape)
        uses.awaited += 1
        return uses

    def receiver(self, value: Any) -> Callable[[Tensor], None] | None:
        """Return what takes in the gradients, (B, *value.shape), of a use of a weight or of what is
        made of weights; None where it is of neither."""
        number = self.number(value)
        if number is not None:
            uses = self.expect(number, value)

            def to_weight(gradients: Tensor) -> None:
                uses.add_whole(gradients)
                self.came_to(number)

            return to_weight
        if not isinstance(value, Tensor) or not hasattr(value, OF_WEIGHTS):
            return None
        self._waiting.pop(id(value), None)
        self._late |= self._roots([value])
        return lambda gradients: self._of_values.append((value, gradients))

    def came_to(self, number: int | None) -> None:
        """Take the norm of a weight's gradients once the backward pass has come to all its uses."""
        assert number is not None
        uses = self.uses[number]
        uses.awaited -= 1
        if not uses.awaited and number not in self._late:
            self._finish(number)

    def _finish(self, number: int) -> None:
        squares = self.uses.pop(number).squares()
        if squares is not None:
            self.squares[number] = squares

    def when_reached(self, out: Tensor, given: Tensor, then: Callable[[Tensor], None]) -> None:
        """Have the gradient of ``out`` given to ``then``; ``given`` is what it is made of beside
        weights."""
        hook: Callable[..., RemovableHandle] = out.register_hook
        self._hooks.append(hook(lambda gradient: then(gradient) if self._listening else None))
        if not given.requires_grad:
            self._ends.append(out)

    def is_of_weights(self, tensor: Any) -> bool:
        """Return whether something is a weight, or made of weights alone."""
        return id(tensor) in self._weights or hasattr(tensor, OF_WEIGHTS)

    def varies(self, tensor: Tensor) -> bool:
        """Return whether a tensor is made of the examples: all that has a gradient and is not made
        of weights alone is, also where a function of a module's own has made it."""
        return not self.is_of_weights(tensor) and (tensor.requires_grad or _is_of_examples(tensor))

    def _roots(self, tensors: Iterable[Tensor]) -> frozenset[int]:
        found: set[int] = set()
        for tensor in tensors:
            number = self._weights.get(id(tensor))
            found |= {number} if number is not None else getattr(tensor, OF_WEIGHTS, frozenset())
        return frozenset(found)

    def _not_known(self, tensors: Iterable[Tensor]) -> None:
        self.unknown |= self._roots(tensors)
        for tensor in tensors:
            self._waiting.pop(id(tensor), None)

    def _made_of(self, weights: list[Tensor], out: Any) -> None:
        """Note what is made of weights alone: it has to meet the examples yet."""
        roots = self._roots(weights)
        for tensor in _tensors((out,)):
            if tensor.requires_grad and tensor is not weights[0]:
                setattr(tensor, OF_WEIGHTS, roots)
                self._waiting[id(tensor)] = (tensor, roots)
        for tensor in weights:
            self._waiting.pop(id(tensor), None)

    def not_understood(self) -> frozenset[int]:
        """Return the weights of which this forward pass has not shown what their gradients are made
        of: those of an unknown use, those that no function was given, and those of which something
        was made that no function was given. They may be used where nothing is seen."""
        left = frozenset().union(*(roots for _, roots in self._waiting.values()))
        unseen = self._weights.values() - self.uses.keys() - self._late
        return left | self.unknown | unseen

    # ---------------------------------------------------------------------------------- backward
    def backward(self, loss: Tensor, others: Sequence[Tensor]) -> None:
        """Take the gradient of a loss of the pass, and of it what each example gives.

        ``others`` are weights that are not measured here, through whose uses the pass goes on.
        """
        copies = [every for *_, every in self._spread]
        ends = [*copies, *self._ends, *others]
        if not ends:
            return
        self._listening = True
        # What is made of those and of others is passed through once more, further down.
        found = torch.autograd.grad(loss, ends, allow_unused=True, retain_graph=bool(others))
        self._listening = False
        for (value, shape, _), gradient in zip(self._spread, found, strict=False):
            if gradient is not None:
                self._of_values.append((value, gradient.reshape(self.examples, *shape)))
        for value, gradients in self._of_values:
            self._pull_back(value, gradients)
        for number in list(self.uses):
            self._finish(number)

    def let_go(self) -> None:
        """Forget the pass. The graph holds the hooks, these hold the watch, and that holds ends of
        the graph: a circle through autograd's own memory, which Python's collector cannot see."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _pull_back(self, value: Tensor, gradients: Tensor) -> None:
        """Add what each example gives to the weights that a value is made of, from gradients
        (B, …) of it."""
        number = self._weights.get(id(value))
        if number is not None:
            self._of(number, gradients.shape[1:]).add_whole(gradients.float())
            return
        roots = sorted(self._roots([value]))
        pulled = torch.autograd.grad(
            value,
            [self._of_number[k] for k in roots],
            gradients,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
        for root, each in zip(roots, pulled, strict=True):
            if each is not None:
                self._of(root, each.shape[1:]).add_whole(each.float())

    def _of(self, number: int, shape: Sequence[int]) -> WeightUses:
        return self.uses.setdefault(number, WeightUses(tuple(shape)))

    # ------------------------------------------------------------------------------- elementwise
    def _meet_elementwise(self, func: Any, given: Sequence[Tensor]) -> bool:
        """Return whether weights in an elementwise function can be spread over the examples, whose
        axis is the first of all others in it."""
        name, axes = getattr(func, "__name__", ""), max(tensor.dim() for tensor in given)
        of_examples = [t for t in given if self.varies(t) and t.dim()]
        if name not in ELEMENTWISE or axes < 2 or not of_examples:
            return False
        in_place = name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))
        if in_place and self.is_of_weights(given[0]):
            return False
        return all(t.dim() == axes and t.shape[0] == self.examples for t in of_examples) and all(
            t.dim() < axes or t.shape[0] == 1 for t in given if self.is_of_weights(t)
        )

    def _spread_over_examples(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Call a function with an example's copy of each weight in it for every example."""
        axes = max(tensor.dim() for tensor in _tensors((*args, *kwargs.values())))

        def spread(value: Any) -> Any:
            if not isinstance(value, Tensor) or not self.is_of_weights(value):
                return value
            self._waiting.pop(id(value), None)
            first = value.reshape(*[1] * (axes - value.dim()), *value.shape)
            every = first.expand(self.examples, *first.shape[1:])
            self._spread.append((value, value.shape, every))
            self._late |= self._roots([value])
            return every

        out = func(*map(spread, args), **{name: spread(one) for name, one in kwargs.items()})
        _mark(out, ())
        return out


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _is_of_examples(tensor: Tensor) -> bool:
    return hasattr(tensor, OF_EXAMPLES)


def mark_as_examples(tensors: Iterable[Tensor]) -> None:
    """Say that tensors are made of the examples."""
    for tensor in tensors:
        setattr(tensor, OF_EXAMPLES, True)


def _mark(out: Any, args: Any) -> None:
    """Note that a function of the examples has made ``out``, or has changed its first argument."""
    if out is None and args and isinstance(args[0], Tensor):
        out = args[0]
    mark_as_examples(_tensors((out,)))
