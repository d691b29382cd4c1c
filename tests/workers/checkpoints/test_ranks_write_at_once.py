"""Two ranks, one of which cannot write: training goes on, and the checkpoint counts once it can."""

import json

import pytest

pytest.importorskip("deepspeed")

import slow_shard
from engine_cells import in_ranks


def test_no_rank_waits_for_the_files_of_another(tmp_path):
    in_ranks(slow_shard.__file__, [str(tmp_path)], 2)
    seen = json.loads((tmp_path / "seen.json").read_text())
    written, complete = seen["before"]
    # Three steps later the first rank's own layers are there, the other's are not.
    assert 0 < len(written) < len(seen["files"]) == 5
    assert complete == []
    assert seen["complete"] == [[slow_shard.STOP], None]
    assert seen["after"] == [slow_shard.STOP]
    assert seen["same"]
