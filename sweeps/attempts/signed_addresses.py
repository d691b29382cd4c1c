"""What must not stay in a store: addresses that let whoever has them in, and tokens.

Libraries put the address of a request into their warnings and errors, and with it what signs it for
hours or days. A store is read by many, for years.
"""

from __future__ import annotations

import re

LEFT_OUT = "…"
# Parameters of an address: of AWS, Google, Azure (sig) and CloudFront, and what anybody calls them.
_PARAMETER = re.compile(
    r"(?i)(?<=[?&;])((?:x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig"
    r"|awsaccesskeyid|googleaccessid|key-pair-id|policy|(?:[a-z_-]*_)?token|api_?key|password"
    r"|secret)=)[^&\s'\"<>]+"
)
# user:password@ of an address.
_LOGIN = re.compile(r"(?<=://)[^/\s:@'\"]+:[^/\s@'\"]+(?=@)")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{12,}")
# Tokens that tell by themselves whose they are: Hugging Face, GitHub, GitLab, Slack.
_OWN = re.compile(r"\b(?:hf_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-)[A-Za-z0-9_-]{16,}")


def without_secrets(text: str) -> str:
    """Return a text without what signs the addresses in it, and without tokens."""
    text = _PARAMETER.sub(rf"\1{LEFT_OUT}", text)
    text = _BEARER.sub(rf"\1 {LEFT_OUT}", _LOGIN.sub(LEFT_OUT, text))
    return _OWN.sub(LEFT_OUT, text)
