"""``depthsweep power``, and the line with which ``plan`` ends."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from planted_store import run_spec, save_sweep, write_run

from orchestrator.cli import cli
from orchestrator.display.power_text import decides_line, power_text
from sweeps.errors import UserError
from sweeps.findings.deciding import deciding
from sweeps.spec import LayerClip
from sweeps.store.store import Store

# Where the names of conditions begin that stand after the numbers.
LABELS = "n  persists  collapses  seeds  runs  "
PAPER = "sweeps/library/paper.yaml"
RATES = """
name: rates
models: {a-model-with-a-name-longer-than-any-column: {standin: gpt2}, tiny: {standin: opt}}
objectives:
  docstrings-of-the-standard-library: {kind: clm, data: {builtin: python-docs}}
  code: {kind: clm, data: {builtin: python-source}}
probe: {data: {builtin: python-docs}}
defaults: {steps: 9, batch_size: 4, sequence_length: 8}
blocks:
  - name: both
    grid:
      model: [a-model-with-a-name-longer-than-any-column, tiny]
      objective: [docstrings-of-the-standard-library]
      control: [standard, {layer_clip: {max_norm: 0.5}}, equal_step, {equal_step: {target: 0.001}}]
      learning_rate: [1e-3, 2e-4]
      seed: [0, 1, 2, 3]
  - name: clipped
    set: {learning_rate: 1e-3}
    grid:
      model: [tiny]
      objective: [code]
      control: [standard]
      max_grad_norm: [1.0]
      seed: [0, 1]
  - name: not-clipped
    set: {learning_rate: 1e-3}
    grid:
      model: [tiny]
      objective: [code]
      control: [{layer_clip: {max_norm: 0.5}}]
      seed: [0, 1, 2]
"""


def invoke(*arguments):
    result = CliRunner().invoke(cli, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.fixture
def rates(tmp_path):
    path = tmp_path / "rates.yaml"
    path.write_text(RATES, encoding="utf-8")
    return str(path)


def test_the_study_is_told_in_eighty_columns_what_it_cannot_decide():
    lines = invoke("power", PAPER).splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines[3 : lines.index("", 3)]]
    assert len(rows) == 18
    assert rows[0] == ["bert-base-uncased", "mlm", "3", "0.69", "0.72", "4", "+1"]
    assert rows[15:] == [
        ["opt-1.3b", "clm", "2", "–", "–", "4", "+4"],
        ["pythia-1.4b", "clm", "2", "–", "–", "4", "+4"],
        ["pythia-6.9b", "clm", "1", "–", "–", "4", "+5"],
    ]
    said = " ".join(" ".join(lines).split())
    assert "can decide 0 of 18 conditions (80 % for either verdict)" in said
    assert "3 of 18, short of 3: opt-1.3b clm, pythia-1.4b clm (2 seeds); pythia-6.9b" in said
    assert "18 with 80 %: 28 runs more" in said
    assert "23 conditions are under standard only" in said
    assert "sd of 0.1 of their mean" in said
    assert "63 % at 3, 53 % at 4" in said


def test_options_say_other_things():
    surer = json.loads(invoke("power", PAPER, "--cv", "0.05", "--effect", "0.6", "--json"))
    assert (surer["decided"], surer["runs_more"], surer["effect"]) == (15, 7, 0.6)
    assert {row["cv"] for row in surer["conditions"]} == {0.05}
    paired = json.loads(invoke("power", PAPER, "--correlation", "0.9", "--json"))
    plain = json.loads(invoke("power", PAPER, "--json"))
    assert paired["conditions"][0]["persists"] > plain["conditions"][0]["persists"]
    assert json.loads(invoke("power", PAPER, "--target", "0.6", "--json"))["runs_more"] == 7


def test_a_sweep_of_another_shape_fits_and_names_what_differs(rates):
    text = invoke("power", rates)
    assert max(map(len, text.splitlines())) <= 80
    rows = text[: text.index("n: seeds")]
    names = " ".join(word for line in rows.splitlines() for word in line[len(LABELS) :].split())
    model, objective = (
        "a-model-with-a-name-longer-than-any-column",
        "docstrings-of-the-standard-library",
    )
    for control in ("layer_clip(0.5)", "equal_step", "equal_step(0.001)"):
        for rate in ("0.001", "0.0002"):
            assert f"{model} {objective} {control} learning_rate {rate}" in names
    said = " ".join(text.split())
    assert "(no standard run with the same settings: max_grad_norm differs)" in said
    assert "12 of 13 conditions (80 % for either verdict)" in said
    page = json.loads(invoke("power", rates, "--json"))
    assert [row["n"] for row in page["conditions"]] == [4] * 12 + [0]
    assert {row["settings"]["learning_rate"] for row in page["conditions"]} == {0.001, 0.0002}
    assert page["conditions"][-1]["seeds_to_add"] == {"control": [3], "standard": [0, 1, 2, 3]}


@pytest.fixture
def store(tmp_path):
    """A sweep whose first condition has four standard runs, of slopes that lie far apart."""
    store, runs = Store.at(str(tmp_path / "store")), []
    for objective, finished in (("clm", 4), ("contrastive", 2)):
        for seed in range(4):
            standard = run_spec("opt", objective, "standard", seed)
            if seed < finished:
                slope = 0.3 + 0.06 * seed
                write_run(store, standard, lambda x, s=slope: 0.2 + s * x)
            runs += [standard, run_spec("opt", objective, "equal_step", seed)]
    save_sweep(store, "spread", runs)
    return str(store.root)


def test_the_spread_of_seeds_is_that_of_the_runs_that_finished(store):
    text = invoke("power", "spread", "--store", store)
    rows = [line for line in text.splitlines() if line.startswith("opt")]
    assert "0.2 n=4" in rows[0]
    assert "n=" not in rows[1]
    assert "median" in text
    assert "assumed, not measured" not in text
    assert max(map(len, text.splitlines())) <= 80
    page = json.loads(invoke("power", "spread", "--store", store, "--json"))
    assert [row["cv_source"] for row in page["conditions"]] == ["measured", "median"]
    assert page["conditions"][0]["cv"] == pytest.approx(0.0775 / 0.39, rel=1e-3)
    given = json.loads(invoke("power", "spread", "--store", store, "--cv", "0.1", "--json"))
    assert {row["cv_source"] for row in given["conditions"]} == {"assumed"}


def test_a_single_measured_condition_says_its_spread(store):
    alone = [
        run for run in Store.at(store).load_sweep("spread").runs if run.objective.kind == "clm"
    ]
    save_sweep(Store.at(store), "alone", alone)
    assert "0.2 n=4" in invoke("power", "alone", "--store", store)


def test_controls_that_their_names_do_not_tell_apart_are_told_by_their_options(monkeypatch):
    monkeypatch.setattr(LayerClip, "setting", "")
    controls = ["standard", LayerClip(max_norm=0.5), LayerClip(max_norm=0.25)]
    runs = [run_spec("m", "clm", control, seed) for control in controls for seed in range(3)]
    lines = power_text("clips", deciding(runs)).splitlines()
    assert lines[2].split() == ["model", "objective", "max_norm", *LABELS.split()]
    assert [line.split()[2] for line in lines[3:5]] == ["0.5", "0.25"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--effect", "0.25"), r"--effect 0.25: give a number above 0.25"),
        (("--effect", "nan"), r"--effect nan"),
        (("--target", "1"), r"--target 1: give a number between 0 and 1"),
        (("--cv", "0"), r"--cv 0: give a number above 0"),
        (("--cv", "inf"), r"--cv inf"),
        (("--correlation", "1.1"), r"--correlation 1.1: give a number from -1 to 1"),
        (("--store", "nowhere"), r"--store nowhere: no such folder; leave it out before"),
    ],
)
def test_a_mistaken_option_is_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        invoke("power", PAPER, *arguments)


def test_a_name_that_the_store_does_not_know_is_refused(store):
    with pytest.raises(
        UserError, match=r"no such sweep file, .* and store .*did you mean 'spread'"
    ):
        invoke("power", "spreat", "--store", store)


def test_without_a_control_it_is_said_what_this_is_about(tmp_path):
    path = tmp_path / "plain.yaml"
    text = RATES[: RATES.index("  - name: clipped")]
    controls = text[text.index("      control:") : text.index("      learning_rate:")]
    path.write_text(text.replace(controls, "      control: [standard]\n"), encoding="utf-8")
    assert "give a block both, `control: [standard, equal_step]`" in " ".join(
        invoke("power", str(path)).split()
    )
    assert json.loads(invoke("power", str(path), "--json"))["conditions"] == []
    assert "decides" not in invoke("plan", str(path))


# ------------------------------------------------------------------------------------------- plan
def test_a_plan_ends_with_what_it_can_decide(store, rates):
    last = invoke("plan", PAPER).splitlines()[-1]
    assert last.startswith("verdicts 15 of 18 controlled conditions at 3 seeds or more")
    assert len(last) <= 80
    data = json.loads(invoke("plan", PAPER, "--json"))["decides"]
    assert data == {"conditions": 18, "with_enough_seeds": 15, "fewest_seeds": 3}
    assert "verdicts 12 of 13" in invoke("plan", rates, "--store", store).splitlines()[-1]
    named = invoke("plan", "spread", "--store", store).splitlines()
    assert named[-1].startswith("verdicts 2 of 2 controlled conditions")
    assert sum("verdicts" in line for line in named) == 1


def test_the_line_fits_however_many_conditions_there_are():
    runs = [run_spec(f"m{k}", "clm", c) for k in range(150) for c in ("standard", "equal_step")]
    assert decides_line(runs[:2])[0].endswith("; see depthsweep power")
    (line,) = decides_line(runs)
    assert line.startswith("verdicts 0 of 150 controlled conditions at 3 seeds or more; ")
    (line,) = decides_line(
        [*runs, *(run_spec("n", "clm", LayerClip(max_norm=k)) for k in range(1, 900))]
    )
    assert line.endswith("or more; depthsweep power")
    assert len(line) <= 80
    assert decides_line(runs[:1]) == []


def test_power_of_a_file_loads_neither_torch_nor_ray_nor_polars():
    script = (
        "import sys\n"
        "from orchestrator.cli import cli\n"
        f"cli.main(['power', {PAPER!r}], standalone_mode=False)\n"
        "print(*{name.split('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert loaded & {"torch", "ray", "polars", "transformers"} == set()
    assert "scipy" in loaded
