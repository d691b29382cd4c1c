"""Conditional writes on servers that compare tags each in their own way."""

import pytest

from sweeps.files import objects
from sweeps.files.objects import ObjectFiles


@pytest.fixture
def asked(monkeypatch):
    """Have the server compare tags without quotes, as Ceph's gateway does; return what it was
    asked."""
    put_if, tags = objects.put_if, []

    def as_ceph(system, place, data, tag):
        tags.append(tag)
        if tag is not None and '"' in tag:
            raise FileExistsError("412")
        return put_if(system, place, data, None if tag is None else f'"{tag}"')

    monkeypatch.setattr(objects, "put_if", as_ceph)
    return tags


def test_a_server_that_compares_tags_without_quotes_is_asked_that_way_from_then_on(s3_url, asked):
    files = ObjectFiles(s3_url)
    first = files.create("a", b"1")
    second = files.replace_if("a", b"2", first)
    assert second not in (None, first)
    assert files.replace_if("a", b"3", second) is not None
    assert files.replace_if("a", b"4", first) is None
    assert files.get("a") == b"3"
    quoted, bare = [first, second], [first.strip('"'), second.strip('"')]
    assert asked == [None, quoted[0], bare[0], bare[1], bare[0]]


def test_a_server_is_not_asked_without_quotes_when_somebody_else_was_first(s3_url, monkeypatch):
    put_if, tags = objects.put_if, []

    def watched(system, place, data, tag):
        tags.append(tag)
        return put_if(system, place, data, tag)

    monkeypatch.setattr(objects, "put_if", watched)
    files = ObjectFiles(s3_url)
    first = files.create("a", b"1")
    files.put("a", b"2")
    assert files.replace_if("a", b"3", first) is None
    assert files.get("a") == b"2"
    assert tags == [None, first]
