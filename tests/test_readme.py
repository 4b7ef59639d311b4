"""The README is made from the code where it can be."""

from __future__ import annotations

import re

from app.samples import draw_samples
from docs.tables import OPERATIONS, README, TABLES_OF_OPERATIONS, fill


def test_the_tables_of_the_readme_are_those_of_the_code():
    text = README.read_text()
    assert fill(text) == text, "run `make docs`"


def test_the_tables_of_operations_are_those_of_the_code():
    text = OPERATIONS.read_text()
    assert fill(text, TABLES_OF_OPERATIONS) == text, "run `make docs`"


def test_every_url_of_the_readme_is_understood(serve, tmp_path):
    draw_samples(tmp_path / "originals")
    urls = re.findall(r"^\| `(/thumb/[^`]+)` \|", README.read_text(), re.MULTILINE)
    assert len(urls) >= 10
    served = serve()
    for url in urls:
        answer = served.get(url)
        assert answer.status_code == 200, (url, answer.text)
        expected = "application/json" if "explain=" in url else "image/"
        assert answer.headers["content-type"].startswith(expected)
