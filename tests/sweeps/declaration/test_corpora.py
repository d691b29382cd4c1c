import pytest

from sweeps.declaration.corpora import (
    PACKAGES,
    corpus_columns,
    corpus_digest,
    corpus_names,
    corpus_rows,
)


@pytest.mark.parametrize("name", corpus_names())
def test_a_corpus_has_its_columns_in_a_fixed_order(name):
    rows = corpus_rows(name)
    assert len(rows) > 50
    assert all(tuple(row) == corpus_columns(name) for row in rows)
    assert rows == corpus_rows(name)


def test_digests_tell_corpora_apart():
    assert len({corpus_digest(name) for name in corpus_names()}) == len(corpus_names())


def test_labels_are_the_packages():
    labels = {row["label"] for row in corpus_rows("python-packages")}
    assert labels == set(range(len(PACKAGES)))
