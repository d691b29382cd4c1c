"""What a run's record says of where it ran, also on a node that lacks something."""

import torch

from workers import run_record


def test_a_node_without_git_runs_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(run_record, "_git_commit", run_record._git_commit.__wrapped__)
    found = run_record.made_on(torch.device("cpu"))
    assert found["git_commit"] is None
    assert found["versions"]["torch"] == torch.__version__
