"""What a client of an object store says went wrong: whether it may pass, and what mends it if not.

Each client has errors of its own. Told apart they are by the status of the server's answer and the
code in it, wherever in the chain of causes they are; without an answer, by what the client lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sweeps.files.patience import REFUSED

# Answers below 500 that another try may better: timeouts, conflicts, throttling, a new bucket's
# redirect. And those above that it will not: what the server does not know to do.
_PASSING = {307, 408, 409, 425, 429}
_LASTING = {501, 505}
# Codes that come with a status which says less: throttled, or harmed on the way.
_PASSING_CODES = re.compile(
    r"Time-?out|Throttl|SlowDown|TooMany|LimitExceeded|Busy|Unavailable|InternalError"
    r"|IncompleteBody|BadDigest|SHA256Mismatch|Checksum"
)
# Errors without an answer, by the names of their classes: what the client was not given. A service
# for credentials that did not answer (…RetrievalError) may answer later.
_LACKING = re.compile(r"(Credential|Profile|Token|Auth|ParamValidation|NoRegion)(?!\w*Retrieval)")
# No object's path looks like that: a bucket's name has three letters at least.
_LIST_OF_OBJECTS = re.compile(r"^(https?://[^/]+/upload/storage/v1/)?b/[^/]+/o/?$")


def may_pass(error: BaseException) -> bool:
    """Return whether another try may succeed without anybody doing anything."""
    status, code = _answer(error)
    if status is not None:
        if status >= 500:
            return status not in _LASTING
        return status in _PASSING or _PASSING_CODES.search(code) is not None
    return not _lacks_access(error)


def is_unmet(error: BaseException) -> bool:
    """Return whether the server has not written because a condition on the write did not hold."""
    return _answer(error)[0] == 412 or any(isinstance(e, FileExistsError) for e in _causes(error))


def is_missing_bucket(error: BaseException) -> bool:
    """Return whether the bucket is not there: by the code of S3, or by what Google's client says it
    did not find, the list of a bucket's objects."""
    return _answer(error)[1] == "NoSuchBucket" or any(
        isinstance(e, FileNotFoundError) and _LIST_OF_OBJECTS.search(str(e)) for e in _causes(error)
    )


def said(error: BaseException) -> str:
    """Return the message of an error on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def advice(error: BaseException) -> str:
    """Return what a person is to do about an error of a client."""
    status, _ = _answer(error)
    if is_missing_bucket(error):
        return "the bucket does not exist; create it, or correct the URL"
    if status in (401, 403) or _lacks_access(error):
        return (
            f"access is refused ({said(error)}); give the client credentials that allow it through"
            " its environment or configuration (for s3: AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)"
        )
    if not may_pass(error):
        return (
            f"the server refuses the request ({said(error)}); correct the URL, the credentials, or"
            " the region and endpoint the client is told of"
        )
    return (
        f"cannot be reached ({said(error)}); correct the URL, or the endpoint the client is told of"
    )


def _lacks_access(error: BaseException) -> bool:
    return any(
        isinstance(one, PermissionError)
        or (isinstance(one, OSError) and one.errno in REFUSED)
        or _LACKING.search(type(one).__name__) is not None
        for one in _causes(error)
    )


def _answer(error: BaseException) -> tuple[int | None, str]:
    """Return status and code of the answer that an error is about; None, "" where there is none."""
    causes = list(_causes(error))
    if any(kind.__name__ == "HttpProcessingError" for e in causes for kind in type(e).__mro__):
        # aiohttp could not read the answer, cut off or no answer of a store: the 400 is its own.
        return None, ""
    for one in causes:
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return _status(status), str(response.get("Error", {}).get("Code", ""))
        for name in ("status_code", "status", "code"):
            for holder in (one, response):
                status = _status(getattr(holder, name, None))
                if status is not None:
                    return status, str(getattr(one, "error_code", "") or "")
    return None, ""


def _status(value: Any) -> int | None:
    number = int(value) if str(value).isdecimal() else 0
    return number if 300 <= number < 600 else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
