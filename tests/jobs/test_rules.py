"""Rules over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.serving import Served, serving

IN = {"outputs": [{"transform": "w=32", "target": "thumbs/{stem}.jpg"}], "prefix": "in/", "poll": 1}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("rules")
    (folder / "originals").mkdir()
    options = {
        "database": f"sqlite:///{folder}/ledger.db",
        "originals": f"file:{folder}/originals",
        "results": f"file:{folder}/results",
        "api_tokens": "the-token-of-boss@admin,the-token-of-worker@jobs:write+events",
    }
    with serving(**options) as started:
        started.client.headers["authorization"] = "Bearer the-token-of-boss"
        yield started


def test_a_rule_is_made_shown_changed_and_deleted(served):
    made = served.client.put("/rules/thumbs", json=IN)
    assert (made.status_code, made.headers["location"]) == (201, "/rules/thumbs")
    shown = served.get("/rules/thumbs").json()
    assert (shown["prefix"], shown["poll"], shown["outputs"]) == ("in/", 1, IN["outputs"])
    again = served.client.put("/rules/thumbs", json=IN)
    assert (again.status_code, again.json()["since"]) == (200, shown["since"])
    changed = served.client.put("/rules/thumbs", json={**IN, "suffix": ".jpg"})
    assert changed.status_code == 200
    assert changed.json()["since"] > shown["since"]
    other = served.client.post("/rules", json=IN)
    assert other.status_code == 201
    ids = [rule["id"] for rule in served.get("/rules").json()["items"]]
    assert ids == sorted(["thumbs", other.json()["id"]])
    assert served.get(other.headers["location"]).json() == other.json()
    assert served.client.delete("/rules/thumbs").status_code == 204
    assert served.client.delete("/rules/thumbs").status_code == 204
    assert served.get("/rules/thumbs").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({**IN, "bucket": "elsewhere"}, 400, "bucket"),
        (
            {**IN, "outputs": [{"transform": "fm=jpeg", "target": "same.jpg"}]},
            400,
            "outputs[0].target",
        ),
        ({**IN, "prefix": "/"}, 400, "prefix"),
        ({**IN, "prefix": "a\u0000"}, 400, "prefix"),
        ({**IN, "prefix": "\ud800"}, 400, "prefix"),
        ({**IN, "suffix": "\n"}, 400, "suffix"),
        ({**IN, "poll": 0.5}, 400, "poll"),
        ({"outputs": IN["outputs"]}, 400, "poll"),
        ({"prefix": "in/", "poll": 1}, 400, "outputs"),
        ({**IN, "outputs": [{"transform": "w=0"}]}, 400, "outputs[0].transform.w"),
        ({**IN, "outputs": [{"target": "s3://elsewhere/{id}"}]}, 403, "outputs[0].target"),
        ({**IN, "every": 5}, 400, "every"),
    ],
)
def test_what_is_wrong_with_a_rule_is_named(served, body, status, param):
    answer = served.client.put("/rules/x", content=json.dumps(body))
    assert (answer.status_code, answer.json()["param"]) == (status, param)
    assert "x" not in [rule["id"] for rule in served.get("/rules").json()["items"]]


def test_the_id_of_a_rule_is_plain(served):
    for name in ("-x", "a b", "x" * 59, "%00"):
        assert served.client.put(f"/rules/{name}", json=IN).json()["param"] == "id"
        assert served.get(f"/rules/{name}").status_code == 400


def test_only_those_who_may_administer_see_rules(served):
    for token, status in (
        ("nobody", 401),
        ("the-token-of-worker", 403),
        ("the-token-of-boss", 200),
    ):
        answer = served.get("/rules", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == status
