"""`depthsweep cluster up` and `down` where the packages of a cluster are not installed."""

import sys

import pytest

from orchestrator.cli import main


@pytest.mark.parametrize("missing", ["psutil", "aiohttp_cors"])
@pytest.mark.parametrize("command", ["up", "down"])
def test_a_missing_package_is_one_line_with_what_to_install(command, missing, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr(sys, "argv", ["depthsweep", "cluster", command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.endswith("pip install -e '.[cluster]' where depthsweep was cloned")
    assert len(said.splitlines()) == 1
