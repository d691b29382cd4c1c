"""Words that mean a repository of the hub."""

import pytest

from sweeps.sources.hub_ids import HubId

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    ("said", "meant", "pinned"),
    [
        (f"owner/na.me-2@{COMMIT}", HubId("owner/na.me-2", COMMIT), True),
        (f"owner/data@{COMMIT}:wikitext-2", HubId("owner/data", COMMIT, "wikitext-2"), True),
        ("owner/name@main", HubId("owner/name", "main"), False),
        (f"owner/name@{COMMIT[:7]}", HubId("owner/name", COMMIT[:7]), False),
        ("owner/name@", HubId("owner/name", ""), False),
        ("owner/name", None, None),
        ("name@main", None, None),
        ("./folder@main", None, None),
        ("../up/name@main", None, None),
        ("/root/name@main", None, None),
        ("owner/name/more@main", None, None),
        ("owner/name@a@b", None, None),
    ],
)
def test_a_word_means_a_repository_at_a_revision_or_nothing(said, meant, pinned):
    found = HubId.of(said)
    assert found == meant
    assert found is None or found.is_pinned == pinned
