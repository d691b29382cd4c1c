"""What an installed package offers is there without a line in the sweep, and known by its files."""

from __future__ import annotations

import importlib
import sys

import pytest
from own_sweep import own_sweep, read, the_run

from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from sweeps.plugins import opened

CODE = """from sweeps.plugins import control
from workers.controls.layer_control import LayerControl

@control("packed_half")
class Half(LayerControl):
    scales_gradients = True
    def __init__(self, *, share: float = 0.5):
        self.share = share
    def gradient_scale(self, gradient_norms):
        return 0 * gradient_norms + self.share
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Have a package installed that offers a control; yield the folder of its modules."""
    site = tmp_path / "site"
    info = site / "own_halves-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "own_halves").mkdir()
    (site / "own_halves" / "__init__.py").write_text("")
    (site / "own_halves" / "controls.py").write_text(CODE)
    (info / "entry_points.txt").write_text("[depthsweep.plugins]\nall = own_halves.controls\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-halves\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(site)
    yield site / "own_halves"
    for name in [name for name in sys.modules if name.split(".")[0] == "own_halves"]:
        del sys.modules[name]


def imported_anew():
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.split(".")[0] == "own_halves"]:
        del sys.modules[name]


def test_its_control_is_used_by_name_and_is_part_of_the_run(tmp_path, package):
    run = the_run(tmp_path, control="packed_half: {share: 0.25}")
    assert run.control.code.plugin == "own-halves"
    assert not run.control.code.of_file
    opened.require_at_hand([run])
    from workers.controls.registry import build_control

    opened.open_plugins(run, lambda _: None)
    assert build_control(run.control).share == 0.25

    (package / "controls.py").write_text(CODE + "# edited\n")
    imported_anew()
    edited = the_run(tmp_path, control="packed_half: {share: 0.25}")
    (package / "beside.py").write_text("")
    beside = the_run(tmp_path, control="packed_half: {share: 0.25}")
    info = package.parent / "own_halves-1.0.dist-info" / "METADATA"
    info.write_text(info.read_text().replace("1.0", "1.1"))
    newer = the_run(tmp_path, control="packed_half: {share: 0.25}")
    assert len({one.run_id for one in (run, edited, beside, newer)}) == 4
    assert the_run(tmp_path).run_id not in {run.run_id, edited.run_id}


def test_a_sweep_without_plugins_imports_no_package(tmp_path, package):
    (package / "controls.py").write_text("raise RuntimeError('imported')\n")
    read(tmp_path)
    path = own_sweep(tmp_path, control="packed_half")
    with pytest.raises(UserError, match=r"package own-halves: .*RuntimeError: imported; mend"):
        read_sweep(path)


def test_another_version_on_a_node_is_refused_before_it_is_used(tmp_path, package):
    run = the_run(tmp_path, control="packed_half")
    (package / "controls.py").write_text(CODE + "# edited\n")
    opened._marks.clear()
    with pytest.raises(UserError, match="own-halves is another one here than the run was planned"):
        opened.open_plugins(run, lambda _: None)
    (package.parent / "own_halves-1.0.dist-info" / "entry_points.txt").unlink()
    with pytest.raises(UserError, match="own-halves, whose plugins the run uses, is not installed"):
        opened.require_at_hand([run])


@pytest.mark.usefixtures("package")
def test_what_a_file_has_is_meant_before_what_a_package_has(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)
    run = the_run(tmp_path, "mine.py", control="packed_half")
    assert run.control.code.of_file
