"""What is wrong with a user's own code is one line with its file and line, and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from own_sweep import own_sweep

from orchestrator.cli import cli

CONTROL = """from sweeps.plugins import control
from workers.controls.layer_control import LayerControl

@control("half")
class Half(LayerControl):
    scales_updates = True

    def __init__(self, *, share: float = 0.5):
        self.share = share

    def update_scale(self, update_norms, weight_norms):
        return 0 * update_norms + self.share
"""
OBJECTIVE = """from sweeps.plugins import objective
from workers.objectives.objective import TrainingObjective

@objective("mine")
class Mine(TrainingObjective):
    roles = ("text",)
    def build_model(self, pretrained): ...
    def tokenise(self, tokenizer, rows, length): ...
    def targets(self, batch): ...
    def loss_sum(self, model, batch): ...
"""
OPTIMIZER = """from sweeps.plugins import optimizer
from workers.updates.update_rule import UpdateRule

@optimizer("mine")
class Mine(UpdateRule):
    states = ("mean",)
    def update(self, slab, gradients, rate): ...
"""
METRIC = """from sweeps.plugins import metric

@metric("far")
def far(reference, current, *, power: int = 2):
    return 0.0
"""


def refused(path) -> str:
    """Return the one line in which a plan is refused."""
    from sweeps.declaration.expand import read_sweep
    from sweeps.errors import UserError

    with pytest.raises(UserError) as error:
        read_sweep(path)
    said = str(error.value)
    assert "\n" not in said
    assert len(said.replace(str(path.parent), "")) < 300
    return said


@pytest.mark.parametrize(
    ("text", "old", "new", "said"),
    [
        (CONTROL, "share\n\n", "share +\n\n", ":9: not Python: invalid syntax"),
        (CONTROL, "(LayerControl)", "", ":4: control 'half' has to inherit from LayerControl of"),
        (
            CONTROL,
            "scales_updates = True",
            "",
            ":4: control 'half' has update_scale, which is neve",
        ),
        (
            CONTROL,
            "update_scale",
            "update_scales",
            ":4: control 'half' says scales_updates and lac",
        ),
        (CONTROL, '"half"', '"equal_step"', ":4: control 'equal_step' is depthsweep's own name"),
        (CONTROL, '("half")', "", ":4: control 'Half' needs a name of letters"),
        (CONTROL, "share: float", "share", ":4: control 'half' has an option without a type"),
        (
            CONTROL,
            "share: float",
            'share: "Floating"',
            ":4: control 'half' has an option whose type",
        ),
        (CONTROL, "*, share", "share", ":4: control 'half' takes share and is given nothing"),
        (CONTROL, "0.5", '"half"', ":4: control 'half' has a default of share that is not of"),
        (
            CONTROL,
            "(self, update_norms, weight_norms)",
            "(self, update_norms)",
            ":4: control 'half' has update_scale(update_norms), which is called with (upd",
        ),
        (
            OBJECTIVE,
            "def targets(self, batch)",
            "def targets(self)",
            ":4: objective 'mine' has targets(), which is called with (batch)",
        ),
        (
            OBJECTIVE,
            "    def targets",
            "    def batch_of(self, arrays, chosen): ...\n    def targets",
            ":4: objective 'mine' has batch_of(arrays, chosen), which is called with (arrays, cho",
        ),
        (OBJECTIVE, "roles = ", "accumulate = 3\n    roles = ", ":4: objective 'mine' has accumul"),
        (CONTROL, "@control", "1 / 0\n@control", ":4: ZeroDivisionError: division by zero"),
        (CONTROL, "@control", "import absent\n@control", ":4: ModuleNotFoundError: No module nam"),
        (CONTROL, "@control", "raise SystemExit(3)\n@control", ":4: SystemExit: 3"),
        (CONTROL, '@control("half")\n', "", ":1: brings nothing: mark what"),
        (OBJECTIVE, "def targets", "def target", ":4: objective 'mine' lacks targets"),
        (OBJECTIVE, '("text",)', '"text"', ":4: objective 'mine' lacks roles"),
        (OBJECTIVE, "(TrainingObjective)", "(dict)", ":4: objective 'mine' has to inherit from Tr"),
        (OBJECTIVE, '"mine"', '"contrastive"', ":4: objective 'contrastive' is depthsweep's own"),
        (OPTIMIZER, "(UpdateRule)", "(dict)", ":4: optimizer 'mine' has to inherit from Upd"),
        (OPTIMIZER, "def update", "def updates", ":4: optimizer 'mine' lacks update"),
        (OPTIMIZER, "gradients, rate", "rate", ":4: optimizer 'mine' has update(slab, rate), w"),
        (OPTIMIZER, '"mine"', '"lion"', ":4: optimizer 'lion' is depthsweep's own name"),
        (METRIC, "(reference, current, ", "(reference, ", ":3: metric 'far' takes reference and"),
        (METRIC, "*, power: int = 2", "**more", ":3: metric 'far' takes any option (**more)"),
        (METRIC, '"far"', '"procrustes"', ":3: metric 'procrustes' is depthsweep's own name"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_its_place(tmp_path, text, old, new, said):
    assert old in text
    (tmp_path / "mine.py").write_text(text.replace(old, new), encoding="utf-8")
    assert f"{tmp_path}/mine.py{said}" in refused(own_sweep(tmp_path, "mine.py"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('("mean",)', '"mean"', ":4: optimizer 'mine' has states 'mean': write a tuple"),
        ('"mean"', '"weights"', ":4: optimizer 'mine' has a state 'weights': give each a name"),
        (
            "    def",
            "    def shapes(self, shape, kind): return {'mean': shape[:1]}\n    def",
            ":4: optimizer 'mine' has states of other shapes than parameters",
        ),
        (
            "    def",
            "    def shapes(self, shape, kind): return {'mode': shape}\n    def",
            ":4: optimizer 'mine' has shapes of 'mode', which is none of its states",
        ),
        (
            "    def",
            "    def shapes(self, shape, kind): return shape['mean']\n    def",
            ":7: optimizer 'mine' cannot be asked for its states: TypeError",
        ),
    ],
)
def test_what_an_optimizer_could_not_keep_is_refused_where_it_is_used(tmp_path, old, new, said):
    (tmp_path / "mine.py").write_text(OPTIMIZER.replace(old, new), encoding="utf-8")
    assert f"mine.py{said}" in refused(own_sweep(tmp_path, "mine.py", more="optimizer: mine"))


def test_an_optimizer_of_whole_matrices_is_refused_where_ranks_would_share_them(tmp_path):
    text = OPTIMIZER.replace("    states", "    whole_matrices = True\n    states")
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    more = "optimizer: mine, engine: deepspeed"
    assert "mine needs whole matrices" in refused(own_sweep(tmp_path, "mine.py", more=more))


def test_options_of_depthsweeps_own_rules_do_nothing_with_another(tmp_path):
    (tmp_path / "mine.py").write_text(OPTIMIZER, encoding="utf-8")
    more = "optimizer: mine, eps: 1e-3"
    assert "eps does nothing with mine" in refused(own_sweep(tmp_path, "mine.py", more=more))


@pytest.mark.parametrize("kind", ["control", "objective"])
def test_what_cannot_be_made_with_the_options_of_the_file_is_refused(tmp_path, kind):
    """Options of the right type may be of no use all the same: another value is."""
    from sweeps.declaration.expand import read_sweep

    if kind == "control":
        text = CONTROL.replace("self.share = share", "self.share = 1 / (share - 0.25)")
        good, bad = ({"control": f"half: {{share: {share}}}"} for share in (0.5, 0.25))
        line = 9
    else:
        made = "\n    def __init__(self, said, *, share: float):\n        1 / (share - 0.25)"
        text = OBJECTIVE.replace('("text",)', f'("text",){made}')
        good, bad = (
            {"objective": f"m: {{kind: mine, data: {{builtin: python-docs}}, share: {share}}}"}
            for share in (0.5, 0.25)
        )
        line = 8
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    read_sweep(own_sweep(tmp_path, "mine.py", **good))
    said = refused(own_sweep(tmp_path, "mine.py", **bad))
    name = "half" if kind == "control" else "mine"
    assert f"mine.py:{line}: {kind} {name!r} cannot be made with its options: ZeroDiv" in said


def test_the_command_line_ends_with_code_2(tmp_path):
    (tmp_path / "mine.py").write_text("class\n")
    own_sweep(tmp_path, "mine.py")
    command = [sys.executable, "-m", "orchestrator", "plan", "own.yaml"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert shown.returncode == 2
    assert f"depthsweep: {tmp_path}/mine.py:1: not Python: invalid syntax\n" == shown.stderr


def test_a_mistake_in_what_is_imported_beside_is_named_there(tmp_path):
    (tmp_path / "mine.py").write_text(f"import near\n{CONTROL}")
    (tmp_path / "near.py").write_text("\n\nx = {}['none']\n")
    assert f"{tmp_path}/near.py:3: KeyError: 'none'" in refused(own_sweep(tmp_path, "mine.py"))
    (tmp_path / "near.py").write_text("x = (\n")
    assert f"{tmp_path}/near.py:1: not Python" in refused(own_sweep(tmp_path, "mine.py"))


@pytest.mark.parametrize(
    ("main", "near", "place"),
    [
        (f"import pathlib\nHERE = pathlib.Path(__file__).parent\n{CONTROL}", "", "mine.py:2"),
        (f"from near import WORDS\n{CONTROL}", "import os\nWORDS = open(__file__)\n", "near.py:2"),
        (
            CONTROL.replace("share\n\n", "share\n        open(__file__)\n\n"),
            "",
            "mine.py:10: control 'half' cannot be made with its options",
        ),
    ],
    ids=["the file", "beside it", "where it is made"],
)
def test_why_it_has_no_file_is_said_with_what_to_do_instead(tmp_path, main, near, place):
    (tmp_path / "mine.py").write_text(main)
    (tmp_path / "near.py").write_text(near)
    said = refused(own_sweep(tmp_path, "mine.py", control="half"))
    assert f"{tmp_path}/{place}: there is no __file__: " in said
    assert "write that into a .py file beside it and import it" in said


def test_a_name_that_another_file_has_is_refused_at_the_second(tmp_path):
    (tmp_path / "one.py").write_text(CONTROL)
    (tmp_path / "two.py").write_text(f"# another\n{CONTROL}")
    said = refused(own_sweep(tmp_path, "one.py", "two.py"))
    assert (
        f"{tmp_path}/two.py:5: control 'half' has a name that {tmp_path}/one.py:4 has tak" in said
    )


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ("none.py", "none.py: no such file; give the path of a .py file"),
        ("mine", "plugins: mine: give the path of a .py file"),
        ("folder.py", "folder.py: cannot be read: Is a directory"),
        ("latin.py", "latin.py: is not UTF-8 text"),
        ("mine.py, ./mine.py", "./mine.py: is listed twice"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_line_that_lists_it(tmp_path, listed, said):
    (tmp_path / "mine.py").write_text(CONTROL)
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "latin.py").write_bytes("# ä\n".encode("latin-1"))
    path = own_sweep(tmp_path, listed)
    assert f"{path}:3: plugins: " in (shown := refused(path))
    assert said in shown


@pytest.mark.parametrize(
    ("control", "said"),
    [
        ("half: {shar: 1}", "control half: unknown option 'shar'; did you mean 'share'?"),
        ("half: {share: true}", "control half: option share: input should be a valid number"),
        ("half: {share: .inf}", "control half: option share: input should be a finite number"),
        ("half: [1]", "the options of half are a mapping"),
        ("hal", "unknown control 'hal'; did you mean 'half'?"),
    ],
)
def test_an_option_is_checked_when_the_sweep_is_read(tmp_path, control, said):
    (tmp_path / "mine.py").write_text(CONTROL)
    path = own_sweep(tmp_path, "mine.py", control=control)
    assert said in (shown := refused(path))
    assert shown.startswith(f"{path}:14: ")


def test_options_of_objectives_and_metrics_are_checked_too(tmp_path):
    text = OBJECTIVE.replace(
        "    roles", "    def __init__(self, spec, *, hard: bool): ...\n    roles"
    )
    (tmp_path / "mine.py").write_text(text + METRIC)
    data = "data: {builtin: python-docs}"
    wrong = refused(own_sweep(tmp_path, "mine.py", objective=f"mine: {{{data}}}"))
    assert "own.yaml:8: objective mine: option hard is required" in wrong
    wrong = refused(own_sweep(tmp_path, "mine.py", objective=f"mine: {{{data}, had: true}}"))
    assert "unknown option 'had'; did you mean 'hard'?" in wrong
    wrong = refused(own_sweep(tmp_path, "mine.py", metrics="[far: {power: 2.5}]"))
    assert "metric far: option power: input should be a valid integer" in wrong
    wrong = refused(own_sweep(tmp_path, "mine.py", metrics="[far, far: {power: 3}]"))
    assert "far stands there twice" in wrong
    wrong = refused(own_sweep(tmp_path, "mine.py", metrics="[procrustes]"))
    assert "procrustes is always computed" in wrong


def test_what_a_file_prints_is_no_answer(tmp_path):
    (tmp_path / "mine.py").write_text(f"print('hello')\n{CONTROL}")
    shown = CliRunner().invoke(cli, ["plan", str(own_sweep(tmp_path, "mine.py")), "--json"])
    assert shown.exit_code == 0
    assert "hello" not in shown.stdout


def test_where_a_file_goes_no_other_path_is_looked_up_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "mine.py").write_text(f"import os\nos.chdir('elsewhere')\n{CONTROL}")
    path = own_sweep(tmp_path, "mine.py").name
    shown = CliRunner().invoke(cli, ["plan", path, "--store", "s"])
    assert shown.exit_code == 0, shown.output
    assert Path.cwd() == tmp_path
