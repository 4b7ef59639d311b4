"""What no log may tell: signatures, tokens, passwords, and the queries of URLs.

Lines are redacted once they are rendered, whoever wrote them: an event of ours, a library's
warning, or the message of an error that has passed through three others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Final

REDACTED: Final = "[redacted]"

_END: Final = r"\s\"'\\<>\x1b"
_RULES: Final = (
    # Presigned URLs sign in the query, and what else is in it is the owner's business.
    (re.compile(rf"(https?://[^?{_END}]*)\?[^{_END}]*", re.IGNORECASE), rf"\1?{REDACTED}"),
    (
        re.compile(
            rf"((?<![\w.-])(?:sig|[\w.-]*(?:signature|credential|token|secret|password))=)"
            rf"[^&;,{_END}]+",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(rf"(://[^/?#@{_END}]*:)[^/?#@{_END}]*@"), rf"\1{REDACTED}@"),
    (re.compile(r"(bearer\s+)[\w.~+/=:@-]{8,}", re.IGNORECASE), rf"\1{REDACTED}"),
)
_SIGNS: Final = ("=", "://", "earer ", "EARER ")
"""Every rule needs one of them, and most lines have none."""
_SHORTEST: Final = 6
"""Characters of a secret that is looked for by itself: a shorter one is in every other line."""


def make_redactor(secrets: Iterable[str] = ()) -> Callable[[str], str]:
    """What takes secrets out of a line: those that are given, and whatever looks like one."""
    known = set()
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            known |= {secret, json.dumps(secret)[1:-1]}
    longest_first = sorted(known, key=len, reverse=True)

    def redact(line: str) -> str:
        for secret in longest_first:
            if secret in line:
                line = line.replace(secret, REDACTED)
        if any(sign in line for sign in _SIGNS):
            for rule, replacement in _RULES:
                line = rule.sub(replacement, line)
        return line

    return redact
