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


@pytest.mark.slow
def test_a_worker_loads_no_ray():
    assert "ray" not in loaded_by("import workers.train")


# ------------------------------------------------------------------------------------------- rooms
# From the top down, as the house is drawn: a room imports from those below it and from itself.
ROOMS = {
    "sweeps": (
        {"report", "library"},
        {"findings"},
        {"statistics"},
        {"upkeep"},
        {"reading"},
        {"attempts"},
        {"store"},
        {"index", "leases", "versions"},
        {"files", "liveness"},
        {"declaration"},
        {"sources"},
        {"plugins", "rows", "refusals"},
        {"spec"},
        {"errors", "node_cache"},
    ),
    "workers": (
        {"__main__", "rank_run", "contract"},
        {"train", "measurement"},
        {"assembly", "weights"},
        {"footprint"},
        {"probes", "distance", "agreement", "evaluation"},
        {"spectra"},
        {"loading"},
        {"pretraining"},
        {"selection"},
        {"checkpoints", "objectives", "run_record"},
        {"sample_gradients"},
        {"engines", "data", "adapters"},
        {"ranks", "models"},
        {"passes"},
        {"updates"},
        {"controls"},
        {"depth"},
        {"progress"},
    ),
    "orchestrator": (
        {"__main__"},
        {"cli"},
        {"commands"},
        {"studies", "measuring"},
        {"difference"},
        {"new_sweep", "notification", "options", "sweep_run", "sweep_submit"},
        {"tuning"},
        {"display", "jobs", "ranks", "tracking"},
        {"answers"},
        {"ledger", "connection"},
        {"sizing"},
        {"policy", "shell"},
    ),
    "cluster": (
        {"library"},
        {"render"},
        {"autoscaler", "kuberay", "slurm"},
        {"job", "profile"},
        {"node_groups"},
    ),
}
MODULES_IN_A_ROOM = 10


def modules(root: Path, package: str) -> dict[str, Path]:
    """Return the modules of a package by their dotted names; a package is named by itself."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def arrows(known: dict[str, Path]) -> set[tuple[str, str]]:
    """Return (importer, imported) of modules, those inside functions and for types included."""
    found = set()
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [one if one in known else node.module for one in inner]
            found |= {(name, target) for target in targets if target in known and target != name}
    return found


def wrong_arrows(root: Path, package: str, order: tuple[set[str], ...]) -> list[str]:
    """Return each import that does not point down the list of rooms, as ``importer -> imported``.

    Rooms of one line do not import each other. A name that no line has is an error of its own.
    """
    height = {room: -line for line, rooms in enumerate(order) for room in rooms}
    wrong = []
    for importer, target in sorted(arrows(modules(root, package))):
        rooms = [name.split(".")[1] for name in (importer, target) if "." in name]
        if len(rooms) < 2:  # the package itself is the door: it may name what it opens
            continue
        unknown = [room for room in rooms if room not in height]
        if unknown:
            wrong.append(f"{importer} -> {target}: no line has {', '.join(unknown)}")
        elif rooms[0] != rooms[1] and height[rooms[0]] <= height[rooms[1]]:
            wrong.append(f"{importer} -> {target}")
    return wrong


def circle(edges: set[tuple[str, str]]) -> list[str]:
    """Return the modules of one circle of imports, the first one again at the end; [] for none."""
    below: dict[str, list[str]] = {}
    for importer, target in sorted(edges):
        below.setdefault(importer, []).append(target)
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for target in below.get(name, ()):
            found = walk(target, [*path, name])
            if found:
                return found
        done.add(name)
        return []

    return next((found for name in below if (found := walk(name, []))), [])


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_arrows_between_rooms_point_down(package):
    assert wrong_arrows(ROOT, package, ROOMS[package]) == []


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_no_modules_import_each_other_in_a_circle(package):
    assert circle(arrows(modules(ROOT, package))) == []


def test_every_room_of_a_floor_has_a_line():
    for package, order in ROOMS.items():
        there = {name.split(".")[1] for name in modules(ROOT, package) if "." in name}
        assert there == set().union(*order), package


def test_an_arrow_back_and_a_circle_are_named(tmp_path):
    for name, text in {
        "floor/high/a.py": "from floor.low import b",
        "floor/low/b.py": "def later():\n    from floor.high import a\n",
        "floor/low/c.py": "import floor.new.d",
        "floor/new/d.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    order = ({"high"}, {"low"})
    assert wrong_arrows(tmp_path, "floor", order) == [
        "floor.low.b -> floor.high.a",
        "floor.low.c -> floor.new.d: no line has new",
    ]
    tied = circle(arrows(modules(tmp_path, "floor")))
    assert tied == ["floor.high.a", "floor.low.b", "floor.high.a"]


def test_no_command_is_imported_by_anything():
    known = modules(ROOT, "orchestrator")
    wrong = [f"{a} -> {b}" for a, b in arrows(known) if b.startswith("orchestrator.commands.")]
    assert wrong == []


def test_rooms_files_and_functions_stay_small():
    large = []
    for folder in (ROOT / top for top in ("sweeps", "workers", "orchestrator", "cluster", "tests")):
        for room in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
            inside = [path for path in room.glob("*.py") if path.name != "__init__.py"]
            if len(inside) > MODULES_IN_A_ROOM and room != ROOT / "orchestrator" / "commands":
                large.append(f"{room.relative_to(ROOT)}: {len(inside)} modules")
        for path in folder.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if (lines := len(text.splitlines())) > 400:
                large.append(f"{path.relative_to(ROOT)}: {lines} lines")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    length = (node.end_lineno or 0) - node.lineno + 1
                    if length > 80:
                        large.append(f"{path.relative_to(ROOT)}: {node.name} has {length} lines")
    assert large == []
