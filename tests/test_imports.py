"""Imports point one way: sweeps ← workers ← orchestrator; cluster reads sweeps."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "sweeps": {"torch", "ray", "deepspeed", "transformers", "workers", "orchestrator", "cluster"},
    "workers": {"ray", "orchestrator", "cluster"},
    "cluster": {"torch", "ray", "deepspeed", "workers", "orchestrator"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_package_imports_nothing_above_it(package):
    wrong = {
        str(path.relative_to(ROOT)): sorted(imported(path) & FORBIDDEN[package])
        for path in (ROOT / package).rglob("*.py")
        if imported(path) & FORBIDDEN[package]
    }
    assert wrong == {}


def test_deepspeed_is_imported_in_its_engine_only():
    wrong = [
        str(path.relative_to(ROOT))
        for package in ("sweeps", "workers", "orchestrator", "cluster")
        for path in (ROOT / package).rglob("*.py")
        if "deepspeed" in imported(path) and not path.name.startswith("deepspeed")
    ]
    assert wrong == []


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(' '.join(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return {name.split(".")[0] for name in found.stdout.splitlines()[-1].split()}


def test_planning_loads_neither_torch_nor_ray_nor_polars():
    code = (
        "from click.testing import CliRunner\n"
        "from orchestrator.cli import cli\n"
        "result = CliRunner().invoke(cli, ['plan', 'sweeps/library/paper.yaml'])\n"
        "assert result.exit_code == 0, result.output\n"
    )
    assert loaded_by(code) & {"torch", "ray", "polars", "transformers", "pandas"} == set()


def test_a_worker_loads_no_ray():
    assert "ray" not in loaded_by("import workers.train")
