"""``depthsweep compare`` and ``depthsweep claims`` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import polars as pl
import pytest
from click.testing import CliRunner
from planted_store import run_spec, save_sweep, write_run
from planted_verdicts import ALIGNMENT, plant_alignment

from orchestrator.answers.schemas import schema_of
from orchestrator.cli import cli
from sweeps.store.store import Store
from tests.orchestrator.command_line import typed

CLAIMS = "sweeps/library/paper.claims.yaml"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store.at(str(tmp_path_factory.mktemp("cli") / "store"))
    runs = []
    for objective, kept in (("clm", 0.2), ("classification", 0.0)):
        for seed in range(3):
            noise = 0.01 * (seed - 1)
            standard = run_spec("gpt2", objective, "standard", seed)
            equal = run_spec("gpt2", objective, "equal_step", seed)
            write_run(store, standard, lambda x, n=noise: 0.3 + (0.3 + n) * x)
            write_run(store, equal, lambda x, n=noise, k=kept: 0.3 + (k + n) * x)
            runs += [standard, equal]
    save_sweep(store, "toy", runs)
    return store.root


def test_compare_gives_each_condition_its_verdict(store: Path, tmp_path: Path) -> None:
    done = typed("compare", "toy", "--store", str(store))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[-1] for line in lines if line.startswith("  cl")] == [
        "persists",
        "collapses",
    ]
    target = tmp_path / "compare.parquet"
    typed("compare", "toy", "--store", str(store), "-o", str(target))
    table = pl.read_parquet(target)
    for name in ("verdict", "verdict_cka_distance", "verdict_equal_change", "verdict_delta_0.1"):
        assert table[name].to_list() == ["persists", "collapses"]
    assert table["verdict_equal_loss"].to_list() == ["unmatched"] * 2
    assert table["dose"].to_list() == [12.0, 12.0]


def test_claims_are_judged_with_their_numbers(store: Path) -> None:
    done = typed("claims", "toy", "--store", str(store), "--claims", CLAIMS)
    assert done.returncode == 0, done.stderr
    assert "✓ C2 SUPPORTED" in done.stdout
    assert "✓ C3 SUPPORTED" in done.stdout
    assert "✗ C4 CONTRADICTED" in done.stdout
    assert "? C5 INSUFFICIENT DATA" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    done = typed("claims", "toy", "--store", str(store), "--claims", CLAIMS, "--json")
    page = json.loads(done.stdout)
    assert page["claims"][0]["tests"][0]["value"] == 1.0
    assert page["claims"][3]["tests"][0]["value"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "toy", "--control", "layer_clip"], "--control layer_clip: no run has it"),
        (["claims", "toy", "--claims", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["claims", "tyo"], "did you mean 'toy'"),
        (["claims", "toy"], "came with no claims: write toy.claims.yaml beside its sweep file"),
    ],
)
def test_a_users_mistake_is_one_line(store: Path, arguments: list[str], message: str) -> None:
    done = typed(*arguments, "--store", str(store))
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_became_of_alignment_is_shown_exported_and_told_to_programs(tmp_path: Path) -> None:
    store = str(plant_alignment(tmp_path, ALIGNMENT).store.root)

    def compare(*more: str) -> str:
        done = CliRunner().invoke(cli, ["compare", "planted", "--store", store, *more])
        assert done.exit_code == 0, done.output
        return done.output

    told = json.loads(compare("--json"))
    assert [row["outcome"] for row in told["alignment"]] == list(ALIGNMENT)
    jsonschema.validate(told, schema_of("compare"))
    assert "alignment at equal evaluation loss" in compare()
    compare("-o", str(tmp_path / "compared.csv"))
    written = pl.read_csv(tmp_path / "compared.csv")
    assert written["alignment_outcome"].to_list() == list(ALIGNMENT)
    changes = [row["degradation_change"] for row in told["alignment"]]
    assert written["alignment_degradation_change"].to_list() == pytest.approx(changes)
