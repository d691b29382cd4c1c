"""Every table fits 80 columns, however many settings a sweep varies and however long its names are,
and a verdict is never what is left out."""

import itertools

import pytest
from planted_store import evaluated, run_spec, save_sweep, write_run

from orchestrator.display.output import wrapped
from sweeps.store.store import Store
from tests.orchestrator.command_line import typed

NAME = "a-sweep-with-quite-a-long-name-of-its-own"
MODEL = "an-organisation-with-a-long-name-and-a-model-7b"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Six settings vary, runs are evaluated, two fail."""
    store = Store.at(str(tmp_path_factory.mktemp("narrow") / "store"))
    runs = []
    grid = itertools.product(("standard", "equal_step"), range(3), (0, 1))
    for control, seed, k in grid:
        run = evaluated(
            run_spec(MODEL, "contrastive", control, seed, learning_rate=(1e-3, 2.5e-5)[k])
        )
        optimizer = run.optimizer.model_copy(
            update={"eps": (1e-6, 0.01)[k], "weight_decay": (0.0, 0.125)[k], "warmup_steps": 2 * k}
        )
        run = run.model_copy(update={"optimizer": optimizer, "batch_size": (8, 128)[k]})
        status = "failed" if seed == 2 and k else "finished"
        write_run(store, run, lambda x, s=seed: 0.1 + (0.3 + 0.01 * s) * x, status=status)
        runs.append(run)
    save_sweep(store, NAME, runs)
    other = [run.model_copy(update={"sequence_length": 32}) for run in runs]
    save_sweep(store, "edited", other)
    return store


@pytest.mark.parametrize(
    "words",
    [
        ("plan", NAME),
        ("power", NAME),
        ("status", NAME),
        ("status",),
        ("ls",),
        ("ls", "--sizes"),
        ("ls", NAME),
        ("ls", "--runs", "--sizes"),
        ("profile", NAME),
        ("compare", NAME),
        ("diff", NAME, NAME),
        ("diff", NAME, "edited"),
        ("claims", NAME, "--claims", "sweeps/library/paper.claims.yaml"),
        ("digest", NAME),
        ("query", "SELECT * FROM runs"),
        ("query", "DESCRIBE profiles"),
        ("doctor",),
        ("gc", "--dry-run"),
        ("resume", NAME, "--dry-run"),
    ],
    ids=" ".join,
)
def test_what_a_command_says_fits_eighty_columns(store, words):
    done = typed(*words, "--store", store.location)
    assert done.returncode in (0, 1), done.stderr
    # The place of a store, which a page of a command may begin with, is as long as it is.
    lines = [line for line in done.stdout.splitlines() if store.location not in line]
    assert [line for line in lines if len(line) > 80] == []


def test_what_is_to_be_copied_stays_in_one_piece():
    """A path that is longer than a line, an option at the end of one."""
    path = "/" + "a-folder/" * 12 + "rows.txt"
    said = f"{path} has other content; {'put it back ' * 4}or say --keep-other-content of it"
    lines = wrapped(said)
    assert lines[0] == path
    assert " ".join(" ".join(lines).split()) == said
    assert max(len(line) for line in lines[1:]) <= 80
    assert any("--keep-other-content" in line.split() for line in lines)


@pytest.mark.parametrize(
    "words",
    [("plan", "paper"), ("power", "paper"), ("plan", "paper", "--gpus", "8x80", "--simulate")],
    ids=" ".join,
)
def test_a_large_study_is_planned_in_eighty_columns(words):
    done = typed(*words)
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


def test_a_verdict_stays_however_many_settings_vary(store):
    said = typed("compare", NAME, "--store", store.location).stdout
    head = next(line for line in said.splitlines() if " verdict" in line)
    verdicts = [line.split()[-1] for line in said.splitlines() if line.startswith("  cont")]
    assert head.endswith("verdict")
    assert {"persists", "insufficient"} <= set(verdicts)
    for name in ("equal change", "metrics"):
        assert f"{name}" in said
    assert not any("no room" in line and "verdict" in line for line in said.splitlines())


def test_verdicts_that_found_no_room_are_said_where_they_are_others(tmp_path):
    """The change collapses by one metric, and by the others it does not."""
    store, runs = Store.at(str(tmp_path / "store")), []
    for control, seed in itertools.product(("standard", "equal_step"), range(3)):
        run = run_spec("gpt2", "clm", control, seed)
        noise = 0.01 * (seed - 1)
        flat = [0.2 + noise * x for x in (0.25, 0.5, 0.75, 1.0)]
        steep = [0.1 + (0.3 + noise) * x for x in (0.25, 0.5, 0.75, 1.0)]
        metrics = {"cka_distance": flat} if control == "equal_step" else {}
        write_run(store, run, steep, metrics=metrics)
        runs.append(run)
    save_sweep(store, "mixed", runs)
    said = typed("compare", "mixed", "--store", store.location).stdout
    told = " ".join(said.split())
    assert "metrics, where the verdict is another: collapses by cka_distance: gpt2 clm" in told
    assert "equal change: the same verdict in every condition" in told
