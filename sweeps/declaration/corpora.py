"""Text that every CPython carries, as datasets: for stand-ins, the demo and the tests.

The corpora are built from the running interpreter's own files, so their content, and with it the
identity of runs that use them, belongs to one Python release.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

# Packages of the standard library large and different enough to tell apart; the labels of
# python-packages are the positions in this tuple.
PACKAGES = ("asyncio", "email", "importlib", "json", "logging", "unittest")
LINES_PER_SNIPPET = 8
# What stand-ins are pretrained on.
STANDIN_CORPUS = "python-docs"


def corpus_names() -> tuple[str, ...]:
    return tuple(_BUILDERS)


def corpus_columns(name: str) -> tuple[str, ...]:
    return _BUILDERS[name][1]


def corpus_rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of a corpus, in a fixed order."""
    return list(_BUILDERS[name][0]())


@cache
def corpus_digest(name: str) -> str:
    """Return SHA-256 over the rows of a corpus, in order, together with its name.

    Over what is made, not what it is made from: code that makes other rows of the same texts, here
    or in the standard library, makes another corpus.
    """
    digest = hashlib.sha256(name.encode())
    for row in corpus_rows(name):
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()


def _topics() -> list[str]:
    from pydoc_data.topics import topics

    return [topics[key] for key in sorted(topics)]


def _sources() -> Iterator[tuple[int, str]]:
    library = Path(sysconfig.get_path("stdlib"))
    for label, package in enumerate(PACKAGES):
        for path in sorted((library / package).glob("*.py")):
            yield label, path.read_text(encoding="utf-8")


def _docs_rows() -> Iterator[dict[str, Any]]:
    for text in _topics():
        yield {"text": text}


def _source_rows() -> Iterator[dict[str, Any]]:
    for _, text in _sources():
        yield {"text": text}


def _package_rows() -> Iterator[dict[str, Any]]:
    for label, text in _sources():
        lines = [line for line in text.splitlines() if line.strip()]
        for start in range(0, len(lines) - LINES_PER_SNIPPET + 1, LINES_PER_SNIPPET):
            yield {"text": "\n".join(lines[start : start + LINES_PER_SNIPPET]), "label": label}


def _pair_rows() -> Iterator[dict[str, Any]]:
    for _, text in _sources():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            docstring = ast.get_docstring(node)
            if docstring:
                code = "\n".join(ast.unparse(line) for line in node.body[1:4])
                arguments = ast.unparse(node.args)
                yield {
                    "anchor": docstring.split("\n\n")[0],
                    "positive": f"def {node.name}({arguments}):\n{code}",
                }


_BUILDERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "python-docs": (_docs_rows, ("text",)),
    "python-source": (_source_rows, ("text",)),
    "python-packages": (_package_rows, ("text", "label")),
    "python-pairs": (_pair_rows, ("anchor", "positive")),
}
