"""What no log may tell is taken out of every line, and the rest of it stays."""

from __future__ import annotations

import pytest

from app.telemetry.redaction import REDACTED, make_redactor

redact = make_redactor(["whsec_abcdefgh", "short", 'quo"ted-secret'])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/thumb/a.jpg?w=20&sig=k1.QUJD&exp=9", f"/thumb/a.jpg?w=20&sig={REDACTED}&exp=9"),
        ('"sig=k1.QUJD"', f'"sig={REDACTED}"'),
        (
            "GET https://b.s3.example/a.jpg?X-Amz-Signature=dead&w=1 failed",
            f"GET https://b.s3.example/a.jpg?{REDACTED} failed",
        ),
        ("X-Amz-Security-Token=FwoG/x==&b=1", f"X-Amz-Security-Token={REDACTED}&b=1"),
        ("X-Goog-Credential=a%2Fb", f"X-Goog-Credential={REDACTED}"),
        ("authorization: Bearer abcd.DEF-_~+/=", f"authorization: Bearer {REDACTED}"),
        ("postgresql://me:pa55%20word@db/x", f"postgresql://me:{REDACTED}@db/x"),
        ("http://user:p@host/a", f"http://user:{REDACTED}@host/a"),
        ("it was whsec_abcdefgh, there", f"it was {REDACTED}, there"),
        ('{"x": "quo\\"ted-secret"}', f'{{"x": "{REDACTED}"}}'),
    ],
)
def test_a_secret_is_taken_out(line, told):
    assert redact(line) == told


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "request", "path": "/thumb/a.jpg", "status": 200, "ms": 1.5}',
        "short words stay; design=1, sigma=2, w=20",
        "http://127.0.0.1:8000/thumb/a.jpg",
        "the bearer of news",
        "http://[::1]:8000/a",
    ],
)
def test_what_is_no_secret_stays(line):
    assert redact(line) == line
