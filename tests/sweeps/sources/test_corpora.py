import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.sources import corpora
from sweeps.sources.corpora import (
    PACKAGES,
    SOURCE,
    corpus_columns,
    corpus_digest,
    corpus_names,
    corpus_rows,
)

# Of the rows of the release that requirements.lock pins. They decide run ids: on every Python and
# platform they are these. Change them on purpose only, with the release or with the rules.
DIGESTS = {
    "python-docs": "a739499296b77f260b447a0047921039c03edd9971a69d0a5c418543b8cae0e1",
    "python-source": "06378e1eddf7b52bc8702729bfd9a191974b1e2ec86a63188b0cbfe13585f856",
    "python-packages": "381d0544bf02d3285b793722f105158ffb3e9a5aac2ef0319b230b99ab9cc6c0",
    "python-pairs": "091018f5d40ed03d005356aa5dfa2e46eec1149d8d0044de421d058dd83f5d3e",
}
# Of rules alone: these are nobody's release.
MADE_UP = {
    "made-up-text": "2f10417610cfbbf70d6510782b39a6cb5b0b9471c9fa37b890898293fc8f5b84",
    "made-up-requests": "ff16fa1ec6c45f83cb66a6f0a208c36974dad960d47e7107710931a6e9494401",
    "made-up-alignment": "31eeae707458d0aafa62abbbe966af0cd69b5bf9b994192fcf5d5ae0a22de3fa",
    "made-up-tasks": "7822174c50e8e20ee90bf7ac626ec5b7725d9265efa4d18c23ccc1d56307866e",
    "made-up-prompts": "a131db093bfd70d058c7e978f93da8ebfa11d6058564835473aa3bc1f0caeeee",
}


@pytest.fixture
def fresh():
    """Corpora are read once a process; here they are read again, before and after."""
    caches = (corpora._files, corpora._rows, corpora.corpus_digest)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize("name", corpus_names())
def test_a_corpus_has_its_columns_in_a_fixed_order(name):
    rows = corpus_rows(name)
    assert len(rows) > 50
    assert all(tuple(row) == corpus_columns(name) for row in rows)
    assert all(row[column] != "" for row in rows for column in corpus_columns(name))
    assert rows == corpus_rows(name)


def test_the_rows_are_those_of_the_pinned_release():
    assert {name: corpus_digest(name) for name in corpus_names()} == DIGESTS | MADE_UP


def test_whoever_installs_by_the_lock_has_the_release_that_the_rows_are_made_of():
    locked = re.findall(
        rf"^{SOURCE}==(\S+)", Path("requirements.lock").read_text(encoding="utf-8"), re.M
    )
    assert locked == [importlib.metadata.version(SOURCE)]


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("name", DIGESTS)
def test_another_release_is_another_corpus(name, monkeypatch):
    before = corpus_digest(name)
    files = corpora._files
    for cached in (corpora._rows, corpora.corpus_digest):
        cached.cache_clear()
    monkeypatch.setattr(
        corpora, "_files", lambda folder: tuple(t.replace("model", "net") for t in files(folder))
    )
    assert corpus_digest(name) != before


@pytest.mark.usefixtures("fresh")
def test_ends_of_lines_do_not_matter(tmp_path, monkeypatch):
    before = {name: corpus_digest(name) for name in corpus_names()}
    spec = importlib.util.find_spec(SOURCE)
    root = Path(spec.submodule_search_locations[0])
    for folder in {*corpora.DOCUMENTED, *PACKAGES}:
        (tmp_path / folder).mkdir()
        for path in (root / folder).glob("*.py"):
            text = path.read_bytes().replace(b"\n", b"\r\n")
            (tmp_path / folder / path.name).write_bytes(text)
    spec.submodule_search_locations[:] = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    for cached in (corpora._files, corpora._rows, corpora.corpus_digest):
        cached.cache_clear()
    assert {name: corpus_digest(name) for name in corpus_names()} == before


def test_the_text_is_read_without_importing_its_package():
    script = (
        "from sweeps.sources.corpora import *\n"
        "import sys\n"
        "[corpus_digest(name) for name in corpus_names()]\n"
        "print(sorted({'ast', 'torch', 'transformers'} & set(sys.modules)))\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout.strip() in ("[]", "['ast']"), found.stderr


def test_pretraining_and_fine_tuning_read_different_files():
    assert set(corpora.DOCUMENTED).isdisjoint(PACKAGES)


def test_labels_are_the_packages():
    labels = {row["label"] for row in corpus_rows("python-packages")}
    assert labels == set(range(len(PACKAGES)))


def test_a_pair_is_a_docstring_and_the_function_below_it():
    for row in corpus_rows("python-pairs"):
        assert row["positive"].lstrip("async ").startswith("def ")
        assert '"""' not in row["anchor"] + row["positive"].split("\n")[0]
        assert row["anchor"] not in row["positive"]
