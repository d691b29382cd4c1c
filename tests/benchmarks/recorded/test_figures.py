"""What is kept of benchmarks: written and read again, and what counts as slower."""

import subprocess
import sys
from dataclasses import replace

import pytest

from tests.benchmarks.recorded.figures import (
    FILE,
    Figure,
    machine,
    read,
    regressions,
    table,
    write,
)

ONE = Figure("six metrics", "64 x 48", 1, 0.02, "netrep", 0.04, 0.5, 0.01, "operations")


def test_what_is_written_is_read_again(tmp_path):
    here = machine()
    write(tmp_path / "figures.json", [ONE], here)
    assert read(tmp_path / "figures.json") == ([ONE], here)
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_where_nothing_is_recorded_nothing_is_slower(tmp_path):
    figures, where = read(tmp_path / "none.json")
    assert (figures, where) == ([], {})
    assert regressions(figures, [ONE]) == []


@pytest.mark.parametrize(("ratio", "shown"), [(0.54, False), (0.56, True), (0.1, False)])
def test_a_ratio_is_slower_from_a_tenth_on(ratio, shown):
    lines = regressions([ONE], [replace(ONE, ratio=ratio)])
    assert bool(lines) == shown
    assert all("six metrics, 64 x 48, 1 thread" in line and "was 0.50" in line for line in lines)


@pytest.mark.parametrize("other", [{"threads": 2}, {"size": "9 x 9"}, {"peer": "scipy"}])
def test_only_the_same_work_beside_the_same_peer_is_compared(other):
    assert regressions([ONE], [replace(ONE, ratio=5.0, **other)]) == []


def test_a_table_has_the_limit_beside_each_figure():
    lines = table([ONE, replace(ONE, threads=2)], machine()).splitlines()
    assert lines[1] == "beside netrep"
    assert [line.split()[-2:] for line in lines[2:4]] == [["0.50×", "2.00×"]] * 2
    assert "limit: operations" in lines


def test_what_is_committed_can_be_printed():
    figures, where = read(FILE)
    assert len({figure.key for figure in figures}) == len(figures) > 0
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.recorded"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == table(figures, where) + "\n"
