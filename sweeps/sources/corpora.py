"""Text of a package that everyone who runs this has, as datasets: for stand-ins, demo and tests.

The text is that of transformers, which pyproject.toml pins to one release: the same on every
platform and under every Python, and by no download. It is read as text, without an import, by rules
that no Python release changes. What decides a run is a digest of the rows themselves, so another
release, or another rule, gives other run ids and never the old ones with other rows.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sweeps.rows.local_rows import Rows
from sweeps.sources.languages import made_up
from sweeps.spec import StandinLanguage

SOURCE = "transformers"
# English: the docstrings of these folders.
DOCUMENTED = ("generation", "pipelines", "utils")
SHORTEST_DOCUMENT = 200
# Python: the files of these. The labels of python-packages are the positions in this tuple.
PACKAGES = ("cli", "distributed", "exporters", "integrations", "loss", "quantizers")
LINES_PER_SNIPPET = 8
LINES_PER_FUNCTION = 3

# What stand-ins are pretrained on, by the language that they are of.
STANDIN_CORPUS = "python-docs"
STANDIN_CORPORA: dict[StandinLanguage, str] = {"docs": STANDIN_CORPUS, "made_up": "made-up-text"}
# What one of the made-up language is instructed and aligned on, and what its tokenizer has to know.
INSTRUCTION, ALIGNMENT, TASKS = "made-up-requests", "made-up-alignment", "made-up-tasks"
# Raise it with every change, in workers.pretraining or workers.models.standins, of what a stand-in
# comes out as: it is another model then, in run ids and in every cache.
STANDIN_RECIPE = 1
# The same for what is particular to those of the made-up language.
MADE_UP_RECIPE = 1

# The comment that nearly every file begins with, which would be most of what there is to learn.
LICENCE = re.compile(r"\A(?:#[^\n]*\n)+")
DOCSTRING = re.compile(r'"""(.*?)"""', re.S)
DEFINITION = re.compile(r"^[ \t]*(?:async )?def \w+\(", re.M)
# A signature over any number of lines, none of them blank, and the docstring below it.
DOCUMENTED_FUNCTION = re.compile(
    r'(?P<signature>(?:[^\n]+\n)*?[^\n]+:)\n\s*r?"""(?P<docstring>.*?)"""\n(?P<body>.*)', re.S
)


def corpus_names() -> tuple[str, ...]:
    return tuple(_BUILDERS)


def corpus_columns(name: str) -> tuple[str, ...]:
    return _BUILDERS[name][1]


def corpus_rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of a corpus, in a fixed order."""
    return list(_rows(name))


def builtin_rows(name: str, columns: dict[str, str]) -> Rows:
    """Return columns of a corpus under their roles; ``columns`` is role to column."""
    rows = _rows(name)
    cells = {role: [row[column] for row in rows] for role, column in columns.items()}
    return Rows(f"builtin {name}", columns, cells)


@cache
def corpus_digest(name: str) -> str:
    """Return SHA-256 over the rows of a corpus, together with its name."""
    rows = json.dumps(_rows(name), ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{name}\n{rows}".encode()).hexdigest()


@cache
def standin_digest(language: StandinLanguage = "docs") -> str:
    """Return SHA-256 over all that decides what a stand-in of a given shape has learned here."""
    made_of = f"{STANDIN_RECIPE}\n{corpus_digest(STANDIN_CORPORA[language])}"
    if language == "made_up":
        learned = (corpus_digest(name) for name in (INSTRUCTION, ALIGNMENT, TASKS))
        made_of = "\n".join((made_of, str(MADE_UP_RECIPE), *learned))
    return hashlib.sha256(made_of.encode()).hexdigest()


@cache
def _rows(name: str) -> tuple[dict[str, Any], ...]:
    return tuple(_BUILDERS[name][0]())


@cache
def _files(folder: str) -> tuple[str, ...]:
    """Return the text of a folder's Python files in the order of their names, ends of lines \\n."""
    found = importlib.util.find_spec(SOURCE)
    assert found is not None
    assert found.submodule_search_locations is not None
    (root,) = found.submodule_search_locations
    paths = sorted(Path(root, folder).glob("*.py"), key=lambda path: path.name)
    return tuple(path.read_text(encoding="utf-8") for path in paths)


def _docs_rows() -> Iterator[dict[str, Any]]:
    documents: dict[str, None] = {}
    for folder in DOCUMENTED:
        for text in _files(folder):
            for docstring in DOCSTRING.findall(text):
                if len(docstring) >= SHORTEST_DOCUMENT:
                    documents["\n".join(map(str.strip, docstring.strip().split("\n")))] = None
    for document in documents:  # each once: some are copied from class to class
        yield {"text": document}


def _sources() -> Iterator[tuple[int, str]]:
    for label, package in enumerate(PACKAGES):
        for text in _files(package):
            code = LICENCE.sub("", text)
            if code.strip():
                yield label, code


def _source_rows() -> Iterator[dict[str, Any]]:
    for _, text in _sources():
        yield {"text": text}


def _package_rows() -> Iterator[dict[str, Any]]:
    for label, text in _sources():
        lines = [line for line in text.split("\n") if line.strip()]
        for start in range(0, len(lines) - LINES_PER_SNIPPET + 1, LINES_PER_SNIPPET):
            yield {"text": "\n".join(lines[start : start + LINES_PER_SNIPPET]), "label": label}


def _pair_rows() -> Iterator[dict[str, Any]]:
    for _, text in _sources():
        starts = [match.start() for match in DEFINITION.finditer(text)]
        for start, end in itertools.pairwise([*starts, len(text)]):
            found = DOCUMENTED_FUNCTION.match(text, start, end)
            if found is None or '"""' in found["signature"]:
                continue
            body = [line.strip() for line in found["body"].split("\n") if line.strip()]
            if body:
                code = "\n".join([found["signature"].strip(), *body[:LINES_PER_FUNCTION]])
                yield {"anchor": found["docstring"].strip().split("\n\n")[0], "positive": code}


_BUILDERS: dict[str, tuple[Callable[[], Iterator[dict[str, Any]]], tuple[str, ...]]] = {
    "python-docs": (_docs_rows, ("text",)),
    "python-source": (_source_rows, ("text",)),
    "python-packages": (_package_rows, ("text", "label")),
    "python-pairs": (_pair_rows, ("anchor", "positive")),
    "made-up-text": (made_up.text_rows, ("text",)),
    INSTRUCTION: (made_up.request_rows, ("prompt", "completion")),
    ALIGNMENT: (made_up.alignment_rows, ("prompt", "completion")),
    TASKS: (made_up.task_rows, ("prompt", "completion")),
    "made-up-prompts": (made_up.prompt_rows, ("prompt", "kind")),
}
