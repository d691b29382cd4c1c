"""How many requests a store on S3 costs: counted where they leave the client, and bounded.

A request costs 20 to 100 ms and money, so what grows with the runs of a sweep is what a command
must not do. The numbers are in sweeps/README.md.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from planted_store import FACTS, run_spec, write_run
from small_run import make_run

from orchestrator.cli import cli
from orchestrator.sweep_run import run_sweep
from sweeps.declaration.expand import Sweep
from sweeps.files.listing import FEW, entries
from sweeps.index import segments
from sweeps.reading.closings import add_to_index
from sweeps.reading.store_state import StoreState
from sweeps.spec import RunSpec
from sweeps.store.store import Store
from workers.train import train

# What `status` may ask of a sweep of 24,000 runs that has finished, and what a command asks of one
# whose index has few files: listings, the record and text of the sweep, the files of the index.
OF_A_FINISHED_SWEEP = 100
OF_A_SMALL_ONE = 60
# A run of 1,000 steps in parts of 100, with its claim, records, parts, checkpoints and end; without
# the heartbeats, which are one request each two seconds or so.
OF_A_RUN = 300
RUNS = FEW + 20


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The requests that this process sends, by method and kind; empty it to begin to count."""
    from aiobotocore.httpsession import AIOHTTPSession

    sent: Counter[str] = Counter()
    send = AIOHTTPSession.send

    async def counted(session: AIOHTTPSession, request: object) -> object:
        listing = "list-type" in request.url  # type: ignore[attr-defined]
        sent["LIST" if listing else request.method] += 1  # type: ignore[attr-defined]
        return await send(session, request)

    monkeypatch.setattr(AIOHTTPSession, "send", counted)
    return sent


def plant(store: Store, count: int) -> list[RunSpec]:
    """Plant finished runs as a sweep on an object store, put there many at a time."""
    local = Store(Path(str(store.cache)) / "planted")
    runs = [run_spec("gpt2", seed=seed, steps=10) for seed in range(count)]
    first = write_run(local, runs[0], [0.1, 0.2])
    there = {str(path.relative_to(first.path)): path for path in first.path.rglob("*.*")}
    data = {name: path.read_bytes() for name, path in there.items() if path.is_file()}
    system, root = store.root.files._system, store.root.files._place("")
    objects = {}
    for run in runs:
        record = {"run_id": run.run_id, "spec": run.model_dump(mode="json"), "facts": FACTS}
        named = {**data, "run.json": json.dumps(record).encode()}
        objects |= {f"{root}/runs/{run.run_id}/{name}": content for name, content in named.items()}
    system.pipe(objects)
    store.save_sweep(Sweep("many", "", "name: many\n", tuple(runs), ()))
    return runs


@pytest.fixture(scope="module")
def finished(s3_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a sweep that has finished, in a store with an index."""
    from s3_server import BUCKET, environment

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(s3_port, tmp_path_factory.mktemp("planter")).items():
            patch.setenv(name, value)
        store = Store.at(f"s3://{BUCKET}/finished")
        runs = plant(store, RUNS)
        for first in range(0, RUNS, FEW):
            add_to_index(store, [run.run_id for run in runs[first : first + FEW]])
        yield store.location


@pytest.fixture
def node(s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has fetched nothing yet."""
    from s3_server import environment

    for name, value in environment(s3_port, tmp_path / "node").items():
        monkeypatch.setenv(name, value)


def called(*words: str) -> str:
    found = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("status", "many"), f"{RUNS} finished"),
        *(
            pytest.param(*rest, marks=pytest.mark.slow)
            for rest in (
                (("plan", "many"), f"skip {RUNS} finished"),
                (("query", "SELECT count(*) AS n FROM runs"), f"n {RUNS} (1 row)"),
                (("query", "SELECT count(*) AS n FROM runs", "--all"), f"n {RUNS} (1 row)"),
                (("query", "SELECT status, sum(attempts) FROM runs GROUP BY status"), f"{RUNS}"),
                (("resume", "many"), f"{RUNS} already finished"),
            )
        ),
    ],
)
def test_a_finished_sweep_is_known_by_few_requests(
    finished: str, requests: Counter[str], words: tuple[str, ...], said: str
) -> None:
    assert said in " ".join(called(*words, "--store", finished).split())
    first = requests.total()
    assert first <= OF_A_SMALL_ONE, dict(requests)
    requests.clear()
    assert said in " ".join(called(*words, "--store", finished).split())
    assert requests.total() <= first


@pytest.mark.usefixtures("node")
def test_the_bound_for_a_sweep_of_24000_runs(finished: str, requests: Counter[str]) -> None:
    """What does not depend on the runs, and of each file of the index a HEAD and a GET: those that
    are large enough to stay as they are, and the small ones that are not merged yet."""
    called("status", "many", "--store", finished)
    files = entries(Store.at(finished).root / segments.FOLDER)
    bytes_a_run = sum(entry.size for entry in files.values()) / RUNS
    large = 24_000 * bytes_a_run / segments.LARGE_BYTES
    of_an_index = 2 * (large + 2 * segments.MANY)
    assert requests.total() - 2 * len(files) + of_an_index <= OF_A_FINISHED_SWEEP


@pytest.mark.usefixtures("node")
def test_a_query_fetches_the_parts_of_the_tables_it_names(
    finished: str, requests: Counter[str], tmp_path: Path
) -> None:
    called("query", "SELECT count(*) FROM profiles", "--store", finished)
    fetched = {path.parent.name for path in tmp_path.rglob("*.parquet")}
    assert fetched == {"profiles"}
    assert requests["GET"] <= RUNS + 20


@pytest.mark.usefixtures("node")
def test_an_open_run_costs_its_own_listing_and_records(
    finished: str, requests: Counter[str]
) -> None:
    called("status", "many", "--store", finished)
    known = Counter(requests)
    store = Store.at(finished)
    runs = list(store.load_sweep("many").runs)
    waiting = run_spec("gpt2", seed=RUNS + 1, steps=10)
    store.save_sweep(Sweep("more", "", "name: more\n", (*runs, waiting), ()))
    requests.clear()
    assert "1 waiting" in called("status", "more", "--store", finished)
    assert requests.total() <= known.total() + 10


@pytest.mark.usefixtures("node")
def test_a_poll_of_watch_is_two_listings(finished: str, requests: Counter[str]) -> None:
    state = StoreState(Store.at(finished), "many")
    before = state()
    requests.clear()
    assert state() == before
    assert requests["LIST"] <= 6
    assert requests["GET"] == 0


def test_a_sweep_in_no_index_is_put_into_one_by_the_next_that_is_carried_out(
    s3_url: str, requests: Counter[str]
) -> None:
    runs = plant(Store.at(s3_url), RUNS)
    sweep = Store.at(s3_url).load_sweep("many")
    requests.clear()
    result = run_sweep(sweep, Store.at(s3_url))
    assert (result.skipped, result.exit_code) == (len(runs), 0)
    first = requests.total()
    requests.clear()
    assert run_sweep(sweep, Store.at(s3_url)).skipped == len(runs)
    assert requests.total() <= OF_A_SMALL_ONE < first


@pytest.mark.parametrize("steps", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_run_of_ten_parts(
    s3_url: str, requests: Counter[str], monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """As many as a run of 1,000 steps in parts of 100: it is parts that are asked for."""
    run = make_run(steps=steps)
    execution = run.execution.model_copy(update={"part_steps": steps // 10, "checkpoint_share": 1})
    run = run.model_copy(update={"execution": execution})
    # How long a step takes is the machine's affair, and so how often a heart beats.
    monkeypatch.setenv("DEPTHSWEEP_STALE_SECONDS", "100000")
    list(train(run, Store.at(s3_url), torch.device("cpu")))
    assert Store.at(s3_url).run(run.run_id).done() is not None
    assert requests.total() <= OF_A_RUN, dict(requests)
