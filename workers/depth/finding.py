"""Finding the stacks of a model in one forward pass.

Blocks are the modules of the outermost ``ModuleList`` whose members pass a hidden state on to each
other; lists that pass it on to each other are one stack (the prelude, core and coda of a looped
transformer). They need not be alike: attention and Mamba layers that take turns are blocks. A list
whose modules do nothing but run another list is looked into (ALBERT's groups). A model without such
a list, in which one module feeds itself several times, has that one block.

An encoder-decoder has two stacks: the state of one is not made from that of the other, though the
decoder's blocks look at what the encoder gave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any

from torch import nn

from sweeps.errors import UserError
from workers.depth.observation import Call, Observation, observe
from workers.depth.stacks import NoStateAToken, Stack, UngroupedParameters

ENCODER, DECODER = "encoder", "decoder"

# What holds blocks in an order.
LISTS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)


def find_stacks(
    model: nn.Module,
    forward: Callable[[], Any],
    blocks: str | None = None,
    tokens: tuple[int, int] | None = None,
) -> tuple[Stack, ...]:
    """Return the stack of a model, or encoder and decoder; ``forward`` runs the model once.

    ``blocks`` is the path of the list that is to be the one stack, whatever the rule would find.
    ``tokens`` are (sequences, tokens) of the forward pass, two numbers that differ and are few of a
    width: by them the axes of hidden states are known, and a block that gives another thing than a
    state a token is refused.
    Raises UngroupedParameters where there is no stack, or several that are no encoder and decoder;
    UserError where ``blocks`` names none.
    """
    observation = observe(model, forward)
    if blocks is not None:
        found: tuple[Stack, ...] = (_declared(observation, blocks),)
    else:
        found = stacks_of(observation)
    if tokens is None:
        return found
    placed = []
    for stack in found:
        axes = _axes(stack, observation.calls, tokens)
        shape = next(c.shape for c in observation.calls if c.module is stack.blocks[-1])
        others = [size for axis, size in enumerate(shape) if axis not in axes]
        placed.append(replace(stack, axes=axes, width=prod(others)))
    return tuple(placed)


def stacks_of(observation: Observation) -> tuple[Stack, ...]:
    """Return the stacks of a forward pass that was observed; see ``find_stacks``."""
    names = {id(module): name for name, module in observation.model.named_modules()}
    joined, lone = _joined(observation, _outermost(_runs(observation), names))
    _require_no_single_block(observation, names, joined, lone)
    if not joined:
        joined, _ = _joined(observation, _repeated(observation, names))
    stacks = [_stack(names, calls) for calls in joined]
    if len(stacks) == 1:
        return tuple(stacks)
    if len(stacks) == 2:
        roles = [_role(stack.path) for stack in stacks]
        if set(roles) == {ENCODER, DECODER}:
            named = {role: replace(s, name=role) for role, s in zip(roles, stacks, strict=True)}
            return (named[ENCODER], named[DECODER])
    found = ", ".join(f"{stack.path} ({len(stack.blocks)})" for stack in stacks[:4])
    kind = type(observation.model).__name__
    if not stacks:
        raise UngroupedParameters(
            f"{kind} has no stack of blocks that pass a hidden state on to each other, so it has no"
            " depth; name the list of its blocks with `blocks: path.to.list`"
        )
    raise UngroupedParameters(
        f"{kind} has {len(stacks)} stacks of blocks, {found}, and depth is one number; choose one"
        " with `blocks: path.to.list`"
    )


def _role(path: str) -> str | None:
    """Return whether a path speaks of an encoder or a decoder, by its outermost word that does."""
    for word in path.split("."):
        for role in (DECODER, ENCODER):
            if role in word:
                return role
    return None


def _axes(stack: Stack, calls: Iterable[Call], tokens: tuple[int, int]) -> tuple[int, int]:
    """Return the axes of sequences and tokens in the states of a stack's blocks.

    Raises NoStateAToken where they are not the same in all states.
    """
    found: tuple[int, int] | None = None
    numbers = {id(block): number for number, block in enumerate(stack.blocks, start=1)}
    for call in calls:
        if id(call.module) not in numbers:
            continue
        for shape in (call.entered, call.shape):
            axes = _axes_of(shape, tokens)
            if axes is None or axes != (found or axes):
                block = f"block {numbers[id(call.module)]} ({type(call.module).__name__})"
                raise NoStateAToken(
                    f"{block} of {stack.path} works on {shape or 'no tensor'} where"
                    f" {tokens[0]} sequences of {tokens[1]} tokens were read: what has no state a"
                    " token cannot be compared; another stack may be named with `blocks`",
                    works_on=shape[1] if len(shape) == 3 and shape[0] == tokens[0] else None,
                )
            found = axes
    return found or (0, 1)


def _axes_of(shape: tuple[int, ...], tokens: tuple[int, int]) -> tuple[int, int] | None:
    if shape[:2] == tokens and len(shape) >= 3:
        return (0, 1)
    if len(shape) >= 3 and all(shape.count(size) == 1 for size in tokens):
        return (shape.index(tokens[0]), shape.index(tokens[1]))
    return None


def _declared(observation: Observation, path: str) -> Stack:
    model = observation.model
    module = dict(model.named_modules()).get(path)
    if not isinstance(module, LISTS):
        lists = [name for name, m in model.named_modules() if isinstance(m, nn.ModuleList)]
        outer = [n for n in lists if not any(n.startswith(f"{other}.") for other in lists)]
        there = ", ".join(outer[:6]) or "no list of modules"
        # The parts of one block feed each other, too, and would pass for a depth.
        has = "has no" if module is None else "has no list of blocks at"
        raise UserError(f"blocks: {type(model).__name__} {has} {path}; it has {there}")
    members = {id(child) for child in module.children()}
    calls = [call for call in observation.calls if id(call.module) in members]
    if not calls:
        raise UserError(
            f"blocks: the modules of {path} are not run in a forward pass of"
            f" {type(model).__name__} on tokens; name a list of blocks that are"
        )
    names = {id(part): name for name, part in model.named_modules()}
    return _stack(names, calls)


def _runs(observation: Observation) -> dict[str, list[Call]]:
    """Return, by path, the lists whose members feed each other, with the members' calls.

    A list of one call is among them: it can be part of a stack, though no stack by itself.
    """
    by_module: dict[int, list[Call]] = {}
    for call in observation.calls:
        by_module.setdefault(id(call.module), []).append(call)
    runs = {}
    for path, module in observation.model.named_modules():
        if isinstance(module, nn.ModuleList):
            members = dict.fromkeys(id(child) for child in module)
            calls = sorted(
                (c for member in members for c in by_module.get(member, ())), key=lambda c: c.number
            )
            if calls:
                runs[path] = calls
    feeds = _feeding(observation, [call for calls in runs.values() for call in calls])
    return {p: calls for p, calls in runs.items() if len(calls) == 1 or _chained(calls, feeds)}


Feeds = Callable[[Call, Call], bool]


def _feeding(observation: Observation, calls: Sequence[Call]) -> Feeds:
    """Return whether the state that one of the calls took was made from the one another gave."""
    marks: dict[int, int] = {}
    bit = {id(call): 1 << k for k, call in enumerate(calls)}
    for call in calls:
        if call.given is not None:
            marks[id(call.given)] = marks.get(id(call.given), 0) | bit[id(call)]
    depends = observation.depends(marks)

    def feeds(first: Call, second: Call) -> bool:
        return bool(second.taken is not None and depends[id(second.taken)] & bit[id(first)])

    return feeds


def _chained(calls: Sequence[Call], feeds: Feeds) -> bool:
    """Whether the calls pass a state on: one that is given goes into the call after it."""
    return any(feeds(a, b) for a, b in pairwise(calls))


def _outermost(runs: dict[str, list[Call]], names: dict[int, str]) -> dict[str, list[Call]]:
    """Return the lists that lie in no block of another, but for those that are all of a block.

    Of a list of one block the parts, which are unlike, are no blocks either.
    """
    outer = {
        path: calls
        for path, calls in runs.items()
        if not any(
            path.startswith(f"{other}.") and (len(runs[other]) > 1 or not _alike(calls))
            for other in runs
        )
    }
    for path, calls in list(outer.items()):
        inner = {p: c for p, c in runs.items() if p.startswith(f"{path}.")}
        blocks = {id(call.module): call.module for call in calls}
        if (
            len(calls) > 1
            and inner
            and all(_is_run(block, names, inner) for block in blocks.values())
        ):
            del outer[path]
            outer |= _outermost(inner, names)
    return outer


def _is_run(block: nn.Module, names: dict[int, str], runs: dict[str, list[Call]]) -> bool:
    """Whether a block is nothing but a run through one of the lists, of modules that are alike.

    Unlike ones are the parts of a block (T5's attention and feed-forward), not blocks.
    """
    prefix = names[id(block)]
    own = [name for name, _ in block.named_parameters(prefix)]
    return any(
        path.startswith(f"{prefix}.")
        and all(name.startswith(f"{path}.") for name in own)
        and len(calls) > 1
        and _alike(calls)
        for path, calls in runs.items()
    )


def _alike(calls: Sequence[Call]) -> bool:
    return len({type(call.module) for call in calls}) == 1


def _repeated(observation: Observation, names: dict[int, str]) -> dict[str, list[Call]]:
    """Return the outermost modules, in no list, that feed each other or themselves.

    They are like modules of one parent, or one module called several times.
    """
    siblings: dict[tuple[str, type], list[Call]] = {}
    for call in observation.calls:
        parent = names.get(id(call.module), "").rpartition(".")[0]
        siblings.setdefault((parent, type(call.module)), []).append(call)
    everything = [call for calls in siblings.values() for call in calls]
    feeds = _feeding(observation, everything)
    found: dict[str, list[Call]] = {}
    for calls in siblings.values():
        if len(calls) >= 2 and _chained(calls, feeds) and names[id(calls[0].module)]:
            found[names[id(calls[0].module)]] = calls
    outer = {p: c for p, c in found.items() if not any(p.startswith(f"{o}.") for o in found)}
    if not outer:
        return {}
    # Norms and projections may feed each other too: the blocks are most of what lies between
    # embeddings and output head.
    largest = max(outer, key=lambda path: _size(outer[path]))
    between = _between_embedding_and_head(observation)
    return {largest: outer[largest]} if _size(outer[largest]) > between / 2 else {}


def _between_embedding_and_head(observation: Observation) -> int:
    """Return how many parameters the modules that ran have, but for embeddings and output head."""
    ask = getattr(observation.model, "get_output_embeddings", None)
    head = ask() if ask else None
    distinct = {
        id(parameter): parameter.numel()
        for call in observation.calls
        if call.module is not head and not isinstance(call.module, nn.Embedding)
        for parameter in call.module.parameters(recurse=False)
    }
    return sum(distinct.values())


def _size(calls: Sequence[Call]) -> int:
    distinct = {id(p): p.numel() for call in calls for p in call.module.parameters()}
    return sum(distinct.values())


def _joined(
    observation: Observation, runs: dict[str, list[Call]]
) -> tuple[list[list[Call]], list[Call]]:
    """Return the calls of each stack, and single calls that would be one of one block.

    Lists of like modules that feed one another are one stack. Of lists that feed one another and
    are not alike, the one with the most parameters is a stack, and the others are around it.
    """
    if not runs:
        return [], []
    lists = sorted(runs.values(), key=lambda calls: calls[0].number)
    feeds = _feeding(observation, [call for calls in lists for call in calls])
    streams: list[list[list[Call]]] = []
    for calls in lists:
        fed = [
            stream
            for stream in streams
            if any(_enters(feeds, a, calls) or _enters(feeds, calls, a) for a in stream)
        ]
        streams = [stream for stream in streams if stream not in fed]
        streams.append([calls, *(each for stream in fed for each in stream)])
    stacks = []
    for stream in streams:
        main = max(stream, key=_size)
        kinds = {type(call.module) for call in main}
        alike = [calls for calls in stream if kinds & {type(call.module) for call in calls}]
        _require_whole_blocks(observation, runs, main, [c for c in stream if c not in alike])
        stacks.append(sorted((c for calls in alike for c in calls), key=lambda c: c.number))
    stacks.sort(key=lambda calls: calls[0].number)
    return [s for s in stacks if len(s) > 1], [s[0] for s in stacks if len(s) == 1]


def _require_no_single_block(
    observation: Observation,
    names: dict[int, str],
    stacks: Sequence[list[Call]],
    lone: Sequence[Call],
) -> None:
    """Raise UngroupedParameters where the only module of a list is a block: it takes a state and
    gives one like it, and is as large as half a block of the stacks, or without any as half of all
    that lies between embeddings and head.

    Its parts feed each other, and would pass for a depth; beside another stack it would be taken
    for a part of the head.
    """
    if stacks:
        block = min(_size(calls) / len({id(c.module) for c in calls}) for calls in stacks)
    else:
        block = _between_embedding_and_head(observation)
    for call in lone:
        if call.shape == call.entered and _size([call]) > block / 2:
            path = names[id(call.module)].rpartition(".")[0]
            others = ", or name the list of its other blocks with `blocks`" if stacks else ""
            raise UngroupedParameters(
                f"{type(observation.model).__name__} has one block in {path}, and a profile over"
                f" depth needs two; take another model{others}"
            )


def _require_whole_blocks(
    observation: Observation,
    runs: dict[str, list[Call]],
    main: list[Call],
    others: Sequence[list[Call]],
) -> None:
    """Raise UngroupedParameters where lists take turns, each with a part of every block."""
    taking_turns = [calls for calls in others if len(calls) == len(main) > 1]
    parts = [path for path, calls in runs.items() if calls is main or calls in taking_turns]
    if taking_turns and all(calls[-1].number > main[0].number for calls in taking_turns):
        raise UngroupedParameters(
            f"{type(observation.model).__name__} has its blocks in parts"
            f" ({', '.join(path.rpartition('.')[2] for path in parts)}) and no module is a whole"
            " one, so that there is no state to measure between them; take another model"
        )


def _enters(feeds: Feeds, one: Sequence[Call], other: Sequence[Call]) -> bool:
    """Whether what one list gives enters the other: goes into a call that no call of its own list
    went into before. Behind its first block a decoder's state holds what the encoder gave, too."""
    first = [call for call in other if not any(feeds(own, call) for own in other)]
    return any(feeds(given, call) for given in one for call in first)


def _stack(names: dict[int, str], calls: Sequence[Call]) -> Stack:
    """Return the stack of calls; modules that hold the very same parameters are one block."""
    blocks: list[nn.Module] = []
    numbers: dict[frozenset[int], int] = {}
    order = []
    for call in calls:
        key = frozenset(id(p) for p in call.module.parameters()) or frozenset([id(call.module)])
        if key not in numbers:
            numbers[key] = len(blocks)
            blocks.append(call.module)
        order.append(numbers[key])
    path = names[id(blocks[0])]
    inside_list = path.rpartition(".")[2].isdecimal()
    return Stack(
        name=None,
        path=path.rpartition(".")[0] if inside_list else path,
        blocks=tuple(blocks),
        calls=tuple(order),
        width=calls[-1].shape[-1] if calls[-1].shape else 0,
    )
