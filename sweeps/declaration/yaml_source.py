"""YAML text to validated objects, with every complaint placed at its line."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from sweeps.errors import UserError, closest
from sweeps.spec.training.control import CONTROL_KINDS, PLUGIN_CONTROL

Model = TypeVar("Model", bound=BaseModel)

# Levels of lists and mappings: several times those of any file, and few enough for every reader.
DEEPEST = 64
# Values with those that aliases repeat: a hundred times those of a file of thousands of lines.
LARGEST = 1_000_000


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number, as YAML 1.2 does and users expect."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$"),
    list("-+0123456789."),
)


@dataclass(frozen=True)
class YamlSource:
    """A YAML document that remembers where each key stands."""

    path: str
    text: str
    root: yaml.Node
    # What the document is, in a complaint about the whole of it.
    what: str = "the sweep"

    @property
    def folder(self) -> Path:
        return Path(self.path).parent

    @classmethod
    def read(cls, path: str, what: str = "the sweep") -> YamlSource:
        """Read a file; raise UserError when it is missing, not UTF-8 text or not YAML."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (FileNotFoundError, IsADirectoryError) as error:
            said = "no such file" if isinstance(error, FileNotFoundError) else "is a folder"
            raise UserError(
                f"{path}: {said}; give the path of a {what.removeprefix('the ')} file"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read: {error}") from None
        return cls.parse(text, path, what)

    @classmethod
    def parse(cls, text: str, path: str, what: str = "the sweep") -> YamlSource:
        try:
            root = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise UserError(f"{path}:{line}: malformed YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise UserError(f"{path}: malformed YAML: {' '.join(str(error).split())}") from None
        except RecursionError:
            raise _too_deep(path, _too_deep_line(text)) from None
        if root is None:
            hint = "; see sweeps/library/demo.yaml" if what == "the sweep" else ""
            raise UserError(f"{path}: the file is empty{hint}")
        source = cls(path, text, root, what)
        source._extent(root, {})
        return source

    def where(self, *keys: Any) -> str:
        """Return ``path:line`` of the deepest key of the chain that the document has."""
        node, line = self.root, self.root.start_mark.line
        for key in keys:
            for marked, child in _children(node):
                if marked[0] == key:
                    node, line = child, marked[1]
                    break
        return f"{self.path}:{line + 1}"

    def value(self) -> Any:
        try:
            return _Loader("").construct_document(self.root)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise UserError(f"{self.path}:{line}: {error.problem}") from None

    def validate(self, model: type[Model], *, value: Any = None, context: Any = None) -> Model:
        """Return the document as ``model``; raise UserError for the first thing wrong with it.

        ``value`` is the document where something of it was moved; validators are given ``context``.
        """
        value = self.value() if value is None else value
        if not isinstance(value, dict):
            raise UserError(f"{self.where()}: expected a mapping of keys, found {value!r}")
        try:
            return model.model_validate_json(json.dumps(value, default=str), context=context)
        except ValidationError as error:
            # A misspelt key is also a missing one; the misspelling says more.
            errors = error.errors(include_url=False)
            first = min(errors, key=lambda each: each["type"] != "extra_forbidden")
            place = self.where(*first["loc"])
            raise UserError(f"{place}: {explain(first, model, self.what)}") from None
        except ValueError as error:
            raise UserError(f"{self.path}: {error}") from None

    def _extent(self, node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
        """Return how many levels a node has and how many values, itself included, with all that
        aliases repeat; raise UserError for a key that stands there twice, and for what cannot be
        written out as data: more levels or values than any file has, or something that an alias
        puts into itself. ``known`` has the nodes that were looked at, None while one is."""
        line = node.start_mark.line + 1
        if id(node) in known:
            found = known[id(node)]
            if found is None:
                raise UserError(
                    f"{self.path}:{line}: what begins here holds an alias (*) of itself, which has"
                    " no end; write out what is meant instead of the alias"
                )
            return found
        known[id(node)] = None
        seen: set[Any] = set()
        levels, values = 1, 1
        for (key, key_line), child in _children(node):
            if isinstance(node, yaml.MappingNode):
                if key in seen:
                    raise UserError(
                        f"{self.path}:{key_line + 1}: the key {key!r} stands here twice"
                    )
                seen.add(key)
            below, within = self._extent(child, known)
            levels, values = max(levels, 1 + below), values + within
        if levels > DEEPEST:
            raise _too_deep(self.path, line)
        if values > LARGEST:
            raise UserError(
                f"{self.path}:{line}: what begins here has more than {LARGEST:,} values with those"
                " that aliases (*) repeat; use fewer aliases of aliases"
            )
        known[id(node)] = (levels, values)
        return levels, values


def _too_deep(path: str, line: int) -> UserError:
    return UserError(
        f"{path}:{line}: lists and mappings stand in one another more than {DEEPEST} deep here, as"
        " no file that is read here does; look for brackets that are not closed"
    )


def _too_deep_line(text: str) -> int:
    """Return the line at which a text that is too deep to be read becomes so."""
    depth = line = 0
    with contextlib.suppress(yaml.YAMLError):
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            line = event.start_mark.line if event.start_mark else line
            if depth > DEEPEST:
                break
    return line + 1


def _children(node: yaml.Node) -> Iterable[tuple[tuple[Any, int], yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            yield (key.value, key.start_mark.line), child
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield (index, child.start_mark.line), child


_CONTROL_OPTIONS: dict[Any, list[str]] = {
    name: [option for option in kind.model_fields if option != "kind"]
    for name, kind in CONTROL_KINDS.items()
    if name != "standard"
}


def explain(error: Any, model: type[BaseModel], what: str = "the sweep") -> str:
    """Return one line for one pydantic error: the key, what is wrong, what is valid."""
    loc = [part for part in error["loc"] if not _is_branch(part)]
    key = ".".join(str(part) for part in loc) or what
    if error["type"] == "extra_forbidden":
        control = next((part for part in error["loc"] if part in _CONTROL_OPTIONS), None)
        valid = _CONTROL_OPTIONS[control] if control else _fields_at(model, loc[:-1])
        hint = f"; {closest(str(loc[-1]), valid)}" if valid else ""
        return f"unknown key {loc[-1]!r} in {'.'.join(map(str, loc[:-1])) or what}{hint}"
    if error["type"] == "missing":
        return f"{key} is required"
    if error["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return f"{key}: unknown value {error['input']!r}; {closest(str(error['input']), known)}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{key}: {message}"
    return f"{key}: {message[0].lower()}{message[1:]}; found {error['input']!r}"


def _is_branch(part: Any) -> bool:
    """Pydantic names the branch of a union in an error's place; a user never wrote it."""
    return isinstance(part, str) and (
        part in (*CONTROL_KINDS, PLUGIN_CONTROL, "float", "str", "int")
        or part.startswith(("literal[", "constrained-", "function-", "list[", "nullable", "tuple["))
    )


def _fields_at(model: Any, loc: list[Any]) -> list[str]:
    """Return the field names of the model that stands at a place, or [] where there is none."""
    for part in loc:
        if isinstance(model, type) and issubclass(model, BaseModel):
            field = model.model_fields.get(str(part))
            model = field.annotation if field else None
            candidates = [model, *_unwrap(model)]
        else:
            candidates = _unwrap(model)
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        model = models[0] if models else model
    if isinstance(model, type) and issubclass(model, BaseModel):
        return list(model.model_fields)
    return []


def _unwrap(annotation: Any) -> list[Any]:
    found: list[Any] = []
    for argument in get_args(annotation):
        found += [argument, *_unwrap(argument)]
    return found
