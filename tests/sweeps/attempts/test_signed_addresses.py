"""What is left of texts that carry secrets, and that others are left alone."""

import logging

import pytest

from sweeps.attempts.run_log import RunLog, read_events
from sweeps.attempts.signed_addresses import without_secrets

SECRET = "hunter2hunter2hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://cdn/x?X-Amz-Date=1&X-Amz-Signature={SECRET}&X-Amz-Expires=60 failed",
        f"https://cdn/x?X-Amz-Credential={SECRET}/20261126/us-east-1",
        f"https://cdn/x?x-goog-signature={SECRET}",
        f"https://a.blob.core.windows.net/c/b?sv=2024&sig={SECRET}&se=2026",
        f"https://cdn/x?Expires=1&Policy={SECRET}&Key-Pair-Id=K",
        f"'https://hub/x?access_token={SECRET}'",
        f"https://me:{SECRET}@host/x",
        f"Authorization: Bearer {SECRET}",
        f"token hf_{SECRET} is invalid",
    ],
)
def test_a_secret_is_left_out_and_the_rest_stays(text):
    said = without_secrets(text)
    assert SECRET not in said
    assert "…" in said
    assert said.split("?")[0].split(" ")[0] in text or "@host/x" in said


@pytest.mark.parametrize(
    "text",
    [
        "loss 3.2 at step 7; token = 12; signature of the function",
        "https://host/x?page=2&size=10",
        "tokens: 1,024 of bearer bonds",
    ],
)
def test_what_is_no_secret_stays(text):
    assert without_secrets(text) == text


def test_the_log_of_a_run_keeps_no_signature_that_a_library_warns_of(tmp_path):
    log = RunLog(tmp_path / "1.jsonl")
    with log.listening():
        logging.getLogger("some.hub").warning("slow: %s", f"https://x/y?X-Amz-Signature={SECRET}")
        log.event("retried", address=f"https://x/y?sig={SECRET}")
    assert SECRET not in (tmp_path / "1.jsonl").read_text()
    warned, retried = read_events(tmp_path / "1.jsonl")
    assert warned["event"] == "slow: https://x/y?X-Amz-Signature=…"
    assert retried["address"] == "https://x/y?sig=…"
