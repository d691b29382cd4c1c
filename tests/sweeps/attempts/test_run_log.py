import logging
import warnings

from sweeps.attempts.attempt import Attempt
from sweeps.attempts.run_log import RunLog, event_text, read_events
from sweeps.store.run_folder import RunFolder


def test_an_attempt_logs_its_beginning_its_end_and_what_libraries_warn_of(tmp_path):
    folder = RunFolder(tmp_path)
    with Attempt(folder) as attempt:
        attempt.log("checkpoint", step=100, loss=2.5)
        logging.getLogger("library").warning("slow path")
        warnings.warn("deprecated", stacklevel=1)
        attempt.end("finished")
    logging.getLogger("library").warning("after the end")
    events = list(read_events(folder.log_path(1)))
    assert [event["event"] for event in events[:3]] == [
        "attempt started",
        "checkpoint",
        "slow path",
    ]
    assert "deprecated" in events[3]["event"]
    assert (events[4]["event"], events[4]["cause"]) == ("attempt ended", "finished")
    assert len(events) == 5
    assert event_text(events[1])[9:] == "checkpoint step=100 loss=2.5"
    assert event_text(events[2])[9:] == "WARNING slow path logger=library"


def test_a_torn_last_line_is_left_out(tmp_path):
    log = RunLog(tmp_path / "a.log")
    log.event("whole")
    with (tmp_path / "a.log").open("a") as file:
        file.write('{"time": "2026')
    assert [event["event"] for event in read_events(tmp_path / "a.log")] == ["whole"]


def test_a_log_that_cannot_be_written_loses_no_run(tmp_path):
    (tmp_path / "logs").write_text("a file where the folder should be")
    with Attempt(RunFolder(tmp_path)) as attempt:
        attempt.end("finished")
    assert RunFolder(tmp_path).attempts()[0]["cause"] == "finished"
