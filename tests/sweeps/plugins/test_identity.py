"""A run that uses a user's own code is known by what the code says, and no other run is."""

from __future__ import annotations

import json
import shutil

import pytest
from own_sweep import EXAMPLES, own_sweep, read, the_run

from sweeps.declaration.expand import read_sweep
from sweeps.plugins.bundle import Bundle, bundle_of
from sweeps.spec import Measurement, RunSpec

SOFT = "soft_clip"


@pytest.fixture
def code(tmp_path):
    """The folder of the examples, to be edited."""
    return shutil.copytree(EXAMPLES, tmp_path / "code")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("soft_clip.py", {"control": SOFT}),
        ("near_soft_clip.py", {"control": SOFT}),
        ("neighbours.py", {"metrics": "[neighbours_lost]"}),
        ("adabelief.py", {"more": "optimizer: adabelief"}),
        (
            "cosine_margin.py",
            {"objective": "cosine_margin: {data: {file: code/pairs.jsonl}}"},
        ),
    ],
)
def test_editing_the_code_makes_another_run_of_those_that_use_it(tmp_path, code, name, said):
    (code / "pairs.jsonl").write_text(json.dumps({"anchor": "a b", "positive": "c"}))
    listed = [f"code/{one.name}" for one in sorted(code.glob("*.py")) if "near_" not in one.name]
    used, standard = the_run(tmp_path, *listed, **said), the_run(tmp_path, *listed)
    (code / name).write_text((code / name).read_text() + "\n# edited\n")
    assert the_run(tmp_path, *listed, **said).run_id != used.run_id
    assert the_run(tmp_path, *listed).run_id == standard.run_id


@pytest.mark.usefixtures("code")
def test_a_sweep_that_lists_code_and_uses_none_has_the_runs_of_one_without(tmp_path):
    assert the_run(tmp_path, "code/soft_clip.py").run_id == the_run(tmp_path).run_id
    assert read(tmp_path, "code/soft_clip.py").plugins == ()


def test_where_the_code_lies_and_what_it_is_called_is_no_part_of_a_run(tmp_path, code):
    before = the_run(tmp_path, "code/soft_clip.py", control=SOFT)
    (tmp_path / "moved").mkdir()
    shutil.move(code / "near_soft_clip.py", tmp_path / "moved")
    shutil.move(code / "soft_clip.py", tmp_path / "moved" / "my clip.v2.py")
    after = the_run(tmp_path, "'moved/my clip.v2.py'", control=SOFT)
    assert after.run_id == before.run_id
    assert after.control.code.plugin != before.control.code.plugin


@pytest.mark.usefixtures("code")
def test_a_default_that_is_said_is_no_other_run_and_another_option_is(tmp_path):
    said = ("soft_clip", "soft_clip: {strength: 1}", "soft_clip: {strength: 2}")
    ids = [the_run(tmp_path, "code/soft_clip.py", control=one).run_id for one in said]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.usefixtures("code")
def test_an_optimizer_of_ones_own_is_known_by_its_options_and_its_code_alone(tmp_path):
    runs = {
        said: the_run(tmp_path, "code/adabelief.py", more=f"optimizer: {said}")
        for said in ("adabelief", "{adabelief: {beta1: 0.9}}", "{adabelief: {beta1: 0.8}}")
    }
    first, said, other = (run.run_id for run in runs.values())
    assert first == said != other
    own = runs["adabelief"].identity()["optimizer"]["own"]
    assert sorted(own) == ["code", "options"]
    assert list(own["code"]) == ["plugin_digest"]


@pytest.mark.usefixtures("code")
def test_measurements_of_a_run_do_not_know_its_own_metrics(tmp_path):
    keys = {
        Measurement(
            kind="propagation", run=the_run(tmp_path, "code/neighbours.py", metrics=metrics)
        ).key
        for metrics in ("[]", "[neighbours_lost]")
    }
    assert len(keys) == 1


def test_a_run_with_own_code_is_read_back_from_its_record_without_the_code(tmp_path, code):
    said = {"control": "soft_clip: {strength: 3}", "metrics": "[neighbours_lost: {k: 2}]"}
    said["more"] = "optimizer: {adabelief: {beta1: 0.8}}"
    listed = ("soft_clip", "neighbours", "adabelief")
    run = the_run(tmp_path, *(f"code/{name}.py" for name in listed), **said)
    shutil.rmtree(code)
    again = RunSpec.model_validate_json(run.model_dump_json())
    assert (again, again.run_id) == (run, run.run_id)
    assert again.describe() == "a clm soft_clip(strength=3) seed 3"


def test_two_versions_of_a_file_live_in_one_process(tmp_path, code):
    scales = []
    for strength in (1.0, 10.0):
        text = f"def bounded(norms, strength):\n    return {strength}\n"
        (code / "near_soft_clip.py").write_text(text)
        sweep = read(tmp_path, "code/soft_clip.py", control=SOFT)
        scales.append(sweep.runs[0])
    from workers.controls.registry import build_control

    assert [build_control(run.control).gradient_scale(None) for run in scales] == [1.0, 10.0]


def test_a_bundle_is_what_a_file_imports_beside_itself_and_nothing_else(tmp_path):
    (tmp_path / "tools" / "deep").mkdir(parents=True)
    for name, text in {
        "mine.py": "import json, tools.deep.one\nfrom sweeps.plugins import control\n"
        "def later():\n    from other import x\n",
        "other.py": "import mine\nx = 1\n",
        "unused.py": "",
        "json.py": "",
        "tools/deep/one.py": "from .. import two\n",
        "tools/two.py": "",
        "tools/notes.txt": "",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "__init__.py").write_text("")
    bundle = bundle_of(tmp_path / "mine.py")
    assert sorted(bundle.files) == ["", "other.py", "tools/deep/one.py", "tools/two.py"]
    assert Bundle.of_text(bundle.as_text()).digest == bundle.digest


def test_code_is_found_in_its_bundle_alone(tmp_path):
    hidden = "import importlib\nnear = importlib.import_module('near')\n"
    (tmp_path / "mine.py").write_text(hidden)
    (tmp_path / "near.py").write_text("")
    with pytest.raises(Exception, match=r"mine.py:2: ModuleNotFoundError: No module named 'near'"):
        read_sweep(own_sweep(tmp_path, "mine.py"))


def test_options_of_an_objective_stand_beside_its_data_or_apart(tmp_path, code):
    (code / "pairs.jsonl").write_text(json.dumps({"anchor": "a b", "positive": "c"}))
    said = ("margin: 0.5", "options: {margin: 0.5}", "pooling: mean, options: {margin: 0.5}")
    ids = {
        the_run(
            tmp_path,
            "code/cosine_margin.py",
            objective=f"cosine_margin: {{data: {{file: code/pairs.jsonl}}, {one}}}",
        ).run_id
        for one in said
    }
    assert len(ids) == 1
