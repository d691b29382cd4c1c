"""What an object store refuses fails at once, and what may pass is waited for."""

import pytest
from aiohttp import ClientResponseError
from aiohttp.http_exceptions import BadHttpMessage
from botocore.exceptions import ClientError
from s3_server import BUCKET, answering, deny, environment, serve_s3

from sweeps.errors import UserError
from sweeps.files import patience
from sweeps.files.patience import StoreRefused, StoreUnavailable
from sweeps.files.refusals import is_missing_bucket, may_pass
from sweeps.files.whole_files import write_text
from sweeps.store.store import Store


@pytest.fixture
def waits(monkeypatch):
    """The pauses that were made; this file's client itself tries each request once."""
    slept = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    return slept


def reach(monkeypatch, port, tmp_path):
    for name, value in environment(port, tmp_path / "node").items():
        monkeypatch.setenv(name, value)


def test_a_role_that_may_not_delete_is_told_so_at_the_first_delete(monkeypatch, tmp_path):
    with serve_s3() as port:
        reach(monkeypatch, port, tmp_path)
        for name, value in deny(port, "s3:DeleteObject").items():
            monkeypatch.setenv(name, value)
        waits = []
        monkeypatch.setattr(patience.time, "sleep", waits.append)
        store = Store.at(f"s3://{BUCKET}/x")
        write_text(store.run("abc").path / "run.json", "{}")
        with pytest.raises(StoreRefused, match=r"--store s3://study/x: access is refused"):
            store.run("abc").forget()
        assert store.run("abc").path.entries().keys() == {"run.json"}
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        worker = Store.at(f"s3://{BUCKET}/x", waits=True)
        with pytest.raises(StoreRefused, match="access is refused"):
            worker.run("abc").attempts()
    assert waits == []


def test_a_bucket_that_is_not_there_is_not_waited_for(s3_url, waits):
    del s3_url
    for waiting in (True, False):
        with pytest.raises(UserError, match="the bucket does not exist; create it"):
            Store.at("s3://none/x", waits=waiting).run("abc").attempts()
    assert waits == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AccessDenied"),
        (403, "NewReasonOfTomorrow"),
        (400, "ExpiredToken"),
        (501, "NotImplemented"),
    ],
)
def test_an_answer_that_stays_the_same_fails_at_once(monkeypatch, tmp_path, waits, status, code):
    with answering(status, code) as port:
        reach(monkeypatch, port, tmp_path)
        store = Store.at(f"s3://{BUCKET}/x", waits=True)
        with pytest.raises(StoreRefused, match=r"refuse.*said by a test"):
            (store.root / "a").write_bytes(b"")
        with pytest.raises(StoreRefused, match="refuse"):
            write_text(store.root / "part", "by a file that is put")
    assert waits == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "InternalError"),
        (502, "NewGatewayOfTomorrow"),
        (409, "OperationAborted"),
        (400, "RequestTimeout"),
    ],
)
def test_an_answer_that_may_change_is_waited_for(monkeypatch, tmp_path, waits, status, code):
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 2.0)
    with answering(status, code) as port:
        reach(monkeypatch, port, tmp_path)
        store = Store.at(f"s3://{BUCKET}/x", waits=True)
        with pytest.raises(StoreUnavailable, match="s3://study/x: could not be written"):
            (store.root / "a").write_bytes(b"")
    assert sum(waits) >= 2


def test_a_server_that_went_away_is_waited_for(s3_url, monkeypatch, waits):
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 2.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreUnavailable, match=s3_url):
        Store.at(s3_url, waits=True).run("abc").attempts()
    assert waits[:2] == [1, 2]


def test_a_client_without_credentials_is_refused_and_says_what_it_wants(s3_url, monkeypatch, waits):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(StoreRefused, match=r"access is refused .*AWS_PROFILE"):
        Store.at(s3_url, waits=True).run("abc").attempts()
    assert waits == []


@pytest.mark.parametrize(
    ("status", "code", "passes"),
    [
        (503, "SlowDown", True),
        (429, "", True),
        (400, "ThrottlingException", True),
        (400, "XAmzContentSHA256Mismatch", True),
        (403, "RequestTimeTooSkewed", False),
        (403, "SignatureDoesNotMatch", False),
        (400, "InvalidToken", False),
        (401, "", False),
        (301, "PermanentRedirect", False),
        (405, "MethodNotAllowed", False),
    ],
)
def test_an_answer_of_s3_is_known_by_its_status_and_then_by_its_code(status, code, passes):
    error = OSError("as the client words it")
    error.__cause__ = ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject"
    )
    assert may_pass(error) is passes


class OfAnotherClient(Exception):
    """As gcsfs (code), aiohttp (status) and azure (status_code) say an answer's status."""

    def __init__(self, **said):
        super().__init__("no words")
        self.__dict__.update(said)


@pytest.mark.parametrize("name", ["code", "status", "status_code"])
@pytest.mark.parametrize(
    ("status", "passes"), [(403, False), (404, False), (503, True), (429, True)]
)
def test_the_status_counts_whatever_the_client_calls_it(name, status, passes):
    assert may_pass(OfAnotherClient(**{name: status})) is passes
    wrapped = OSError("wrapped")
    wrapped.__cause__ = OfAnotherClient(**{name: str(status)})
    assert may_pass(wrapped) is passes


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("b/nosuch/o", True),
        ("https://storage.googleapis.com/upload/storage/v1/b/nosuch/o", True),
        ("b/study/o/runs%2Fabc%2FDONE.json", False),
        ("study/b/x/o", False),
    ],
)
def test_google_names_a_bucket_that_is_not_there_by_the_list_of_its_objects(path, missing):
    assert is_missing_bucket(FileNotFoundError(path)) is missing


def test_an_answer_that_was_cut_off_is_none_and_may_pass():
    cut = BadHttpMessage("Data after `Connection: close`")
    assert cut.code == 400, "as if the server had refused"
    read = ClientResponseError(None, (), status=cut.code, message=cut.message)
    read.__cause__ = cut
    error = OSError("Connection was closed before we received a valid response")
    error.__cause__ = read
    assert may_pass(error)
    assert not may_pass(ClientResponseError(None, (), status=400))


def test_an_error_that_says_nothing_may_pass():
    assert may_pass(RuntimeError("Session is closed"))
    assert may_pass(OfAnotherClient(code=7))
