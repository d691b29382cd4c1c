"""Where a fault can be planted in a file, and what the file says then.

The operators are cosmic-ray's, and one of our own: a statement that is left out, which is how a
guard goes missing. A seeded sample takes lines alike, and of a line one fault, so that a line of
arithmetic, which has dozens, counts no more than a line that forgets a lease.
"""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.plugins import get_operator
from parso.python.tree import Keyword

# Of cosmic-ray's kinds, those a maintainer would fear; and of what it exchanges, its neighbour: a
# comparison of words by order, or a shift of bits in a sum, is a fault that nobody makes.
KINDS = (
    *("AddNot", "NumberReplacer", "ZeroIterationForLoop"),
    *("ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
    *("ReplaceUnaryOperator_USub_UAdd", "ReplaceUnaryOperator_Delete_Not"),
    *("ReplaceUnaryOperator_Delete_Invert",),
)
NEIGHBOURS = {
    "ReplaceComparisonOperator": (
        *(("Eq", "NotEq"), ("NotEq", "Eq"), ("Lt", "LtE"), ("LtE", "Lt"), ("Gt", "GtE")),
        *(("GtE", "Gt"), ("Is", "IsNot"), ("IsNot", "Is")),
    ),
    "ReplaceBinaryOperator": (
        *(("Add", "Sub"), ("Sub", "Add"), ("Mul", "Div"), ("Div", "Mul"), ("FloorDiv", "Mul")),
        *(("Mod", "Mul"), ("Pow", "Mul"), ("BitOr", "BitAnd"), ("BitAnd", "BitOr")),
    ),
}


@dataclass(frozen=True)
class Fault:
    """One fault: the line it changes, as it was and as it becomes, and the file's text with it."""

    file: str
    line: int
    was: str
    becomes: str
    text: str


class RemoveStatement(Operator):
    """An operator that leaves out a call, a raise, or an assignment to what lives on."""

    def mutation_positions(self, node):
        if node.type == "simple_stmt" and _lives_on(node.children[0]) and _in_function(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):  # noqa: ARG002 (the interface is cosmic-ray's)
        first = node.get_first_leaf()
        node.children[0] = Keyword("pass", first.start_pos, first.prefix)
        return node

    @classmethod
    def examples(cls):
        return (Example("def f(x):\n    x.go()\n", "def f(x):\n    pass\n"),)


def faults_of(text: str) -> dict[int, dict[str, list[tuple[type[Operator], int]]]]:
    """Return where faults can be planted: line, kind of operator, operator and occurrence."""
    skipped = _skipped_lines(text)
    found: dict[int, dict[str, list[tuple[type[Operator], int]]]] = {}
    tree = get_ast(text)
    nodes = list(ast_nodes(tree))
    for kind, operator in _operators():
        occurrence = 0
        for node in nodes:
            for (line, column), _ in operator().mutation_positions(node):
                if not any(begin <= (line, column) < end for begin, end in skipped):
                    kinds = found.setdefault(line, defaultdict(list))
                    kinds[kind].append((operator, occurrence))
                occurrence += 1
    return found


def sample(texts: dict[str, str], count: int, seed: int) -> list[Fault]:
    """Return up to ``count`` faults of files, at most one a line, the same for the same seed."""
    chance = random.Random(f"{seed} {sorted(texts)}")
    places = [
        (file, kinds)
        for file, text in sorted(texts.items())
        for _, kinds in sorted(faults_of(text).items())
    ]
    chance.shuffle(places)
    found: list[Fault] = []
    for file, kinds in places:
        if len(found) == count:
            break
        operator, occurrence = chance.choice(kinds[chance.choice(sorted(kinds))])
        fault = _planted(file, texts[file], operator, occurrence)
        if fault is not None:
            found.append(fault)
    return found


def _planted(file: str, text: str, operator: type[Operator], occurrence: int) -> Fault | None:
    """Return a fault, or nothing where it says the same or is no Python."""
    changed = mutate_code(text, operator(), occurrence)
    if changed is None:
        return None
    try:
        if ast.dump(ast.parse(changed)) == ast.dump(ast.parse(text)):
            return None
    except SyntaxError:
        return None
    before, after = text.splitlines(), changed.splitlines()
    first = next(k for k, (old, new) in enumerate(zip(before, after, strict=False)) if old != new)
    return Fault(file, first + 1, before[first].strip(), after[first].strip(), changed)


def _operators() -> Iterator[tuple[str, type[Operator]]]:
    for kind in KINDS:
        yield kind, get_operator(f"core/{kind}")
    for kind, pairs in NEIGHBOURS.items():
        for pair in pairs:
            yield kind, get_operator("_".join((f"core/{kind}", *pair)))
    yield "RemoveStatement", RemoveStatement


def _lives_on(statement: parso.tree.NodeOrLeaf) -> bool:
    """Tell a call, a raise, and an assignment to an attribute, an item or a sum that goes on."""
    if statement.type in ("raise_stmt", "atom_expr", "power", "await_expr"):
        return True
    if statement.type != "expr_stmt":
        return False
    target, sign = statement.children[0], statement.children[1]
    return target.type in ("atom_expr", "power") or getattr(sign, "value", "=") != "="


def _in_function(node: parso.tree.NodeOrLeaf) -> bool:
    return parso.tree.search_ancestor(node, "funcdef") is not None


def _skipped_lines(text: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the spans that decide nothing: annotations, imports, what is raised or said, whether a
    dataclass is frozen, and that what ``zip`` is given is of one length, which is always so."""
    spans = []

    def skip(node: ast.AST | None) -> None:
        if node is not None:
            begin = (node.lineno, node.col_offset)
            spans.append((begin, (node.end_lineno, node.end_col_offset)))

    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.arg | ast.AnnAssign):
            skip(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            skip(node.returns)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for word in node.exc.args:
                skip(word)
        elif isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                skip(decorator)
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip"
        ):
            for word in node.keywords:
                skip(word.value)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            skip(node)
    return spans
