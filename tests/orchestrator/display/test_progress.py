import io
import time

from rich.console import Console

from orchestrator.display.progress import Board, Display, duration
from sweeps.declaration.expand import read_sweep
from sweeps.declaration.settings import run_labels

RUNS = {run.run_id: run for run in read_sweep("sweeps/library/demo.yaml").runs[:2]}
FIRST, SECOND = RUNS


def test_a_board_follows_the_events():
    board = Board(RUNS, run_labels(list(RUNS.values())))
    assert board.seconds_left() is None
    board.apply(FIRST, "started", {})
    board.apply(FIRST, "progress", {"step": 30, "loss": 2.5})
    assert (board.running[FIRST].step, board.running[FIRST].loss) == (30, 2.5)
    assert board.seconds_left() is None
    board.apply(FIRST, "ended", {"status": "finished", "step": 60})
    assert board.seconds_left() > 0
    board.apply(SECOND, "started", {})
    board.apply(SECOND, "ended", {"status": "failed", "error": "OSError: disk full"})
    assert board.ended == {FIRST: "finished", SECOND: "failed"}
    assert board.errors == {SECOND: "OSError: disk full"}
    assert board.running == {}
    assert board.seconds_left() == 0


def test_a_log_gets_one_line_for_each_end_with_its_error():
    output = io.StringIO()
    console = Console(file=output, force_terminal=False, width=200)
    with Display(Board(RUNS, run_labels(list(RUNS.values()))), console) as display:
        display.event(FIRST, "started", {})
        display.event(FIRST, "ended", {"status": "finished", "loss": 1.25})
        display.event(SECOND, "ended", {"status": "failed", "error": "[red]OSError[/red]"})
    first, second, third = output.getvalue().splitlines()
    assert first.startswith(f"finished  {FIRST} tiny-bert mlm standard seed 0 loss 1.2500")
    assert second.startswith(f"failed    {SECOND}")
    assert third.strip() == "[red]OSError[/red]"


def test_what_a_run_scored_on_held_out_examples_is_said_where_it_ends():
    output = io.StringIO()
    console = Console(file=output, force_terminal=False, width=200)
    scored = {"step": 8, "loss": 0.4321, "macro_f1": 0.75}
    with Display(Board(RUNS, run_labels(list(RUNS.values()))), console) as display:
        display.event(FIRST, "ended", {"status": "stopped", "loss": 1.25, "evaluation": scored})
        display.event(SECOND, "ended", {"status": "finished", "evaluation": None})
    first, second = output.getvalue().splitlines()
    assert "loss 1.2500, held-out loss 0.4321, macro f1 0.75" in first
    assert "held-out" not in second


def test_a_terminal_shows_the_running_runs():
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=80, height=20)
    with Display(Board(RUNS, run_labels(list(RUNS.values()))), console) as display:
        display.event(FIRST, "started", {})
        display.event(FIRST, "progress", {"step": 12, "loss": 3.5})
    shown = output.getvalue()
    assert "0/2 runs, 1 running" in shown
    assert "12/60" in shown
    assert "loss 3.5000" in shown


def test_what_takes_long_before_the_first_step_is_shown_until_it_is_done():
    output = io.StringIO()
    board = Board(RUNS, run_labels(list(RUNS.values())))
    console = Console(file=output, force_terminal=False, width=120)
    with Display(board, console) as display:
        for run_id in RUNS:  # both wait for the same
            display.event(run_id, "started", {})
            display.event(run_id, "progress", {"step": 0, "doing": "packing texts: 12,000 tokens"})
        assert board.running[FIRST].reached == "packing texts: 12,000 tokens"
        assert display._summary() == "0/2 runs, 2 running, packing texts: 12,000 tokens"
        console.print(display._render())
        assert output.getvalue().count("packing texts: 12,000 tokens") == 3
        display.event(FIRST, "progress", {"step": 0, "doing": None})
        assert board.running[FIRST].reached == "preparing"
        display.event(SECOND, "progress", {"step": 1, "loss": 2.0})
        assert display._summary() == "0/2 runs, 2 running"


def test_a_log_hears_of_a_sweep_in_which_nothing_ends(monkeypatch):
    monkeypatch.setattr("orchestrator.display.progress.LINE_SECONDS", 0.05)
    output = io.StringIO()
    with Display(
        Board(RUNS, run_labels(list(RUNS.values()))),
        Console(file=output, force_terminal=False, width=200),
    ) as display:
        display.event(FIRST, "started", {})
        until = time.monotonic() + 20
        while not output.getvalue() and time.monotonic() < until:
            time.sleep(0.02)
    assert output.getvalue().startswith("0/2 runs, 1 running")


def test_a_time_span_is_said_in_words():
    said = {1: "1 second", 42: "42 seconds", 200: "3 minutes", 3_600: "60 minutes"}
    said |= {7_800: "2 hours 10 minutes", 7_200: "2 hours", 43_000: "12 hours"}
    said |= {273_600: "3 days 4 hours", 172_800: "2 days"}
    assert {seconds: duration(seconds) for seconds in said} == said
