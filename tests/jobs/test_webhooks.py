"""Webhooks: signed, sent once, sent again over a day, and never to where the guard forbids."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from app.dates import show_http_date
from app.errors import InvalidRequest, SourceRefused
from app.jobs import deliveries, webhooks
from app.jobs.database import Database
from app.jobs.deliveries import Delivery, DeliveryState
from app.jobs.webhooks import AT_ONCE, MOST_ATTEMPTS, Sender, WebhookCheck, webhook_guard
from app.outbound import Outbound
from app.settings import Settings
from app.sources import web
from app.sources.base import Ref
from app.telemetry import Metrics
from tests.http import originals as draw
from tests.jobs.ledgers import Clock, add_jobs, end_well, open_ledger
from tests.serving import Served, serving
from tests.sources.origin import (
    Names,
    Origin,
    answer,
    in_turn,
    redirect,
    running_origin,
    stall,
    tls_context,
)

OLD, NEW = ("whsec_" + base64.b64encode(bytes([n]) * 24).decode() for n in (1, 2))
DAY = 86_400.0


@pytest.fixture(autouse=True)
def _certificates_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "create_ssl_context", tls_context)


@pytest.fixture
def receiver() -> Iterator[Origin]:
    with running_origin() as origin:
        yield origin


@pytest.fixture
def ledger_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'pixelmill.db'}"


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    with open_ledger(ledger_url) as opened:
        yield opened


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moving = Clock()
    monkeypatch.setattr(webhooks, "time", moving)
    return moving


class Sending:
    """A sender, and what it counts."""

    def __init__(self, database: Database, **options: Any) -> None:
        resolver = options.pop("resolver", None)
        settings = Settings(
            _env_file=None,
            **{"webhook_secrets": OLD, "webhook_hosts": "*:*", "allow_private_networks": True}
            | options,
        )
        guard = webhook_guard(settings, **({} if resolver is None else {"resolver": resolver}))
        self.database = database
        self.metrics = Metrics()
        self._outbound = Outbound(guard, connections=AT_ONCE)
        self._sender = Sender(
            database, self._outbound, keys=settings.webhook_keys, metrics=self.metrics
        )

    async def send_due(self) -> None:
        await self._sender.send_due()

    def count(self, outcome: str) -> float:
        name = "pixelmill_webhook_deliveries_total"
        return self.metrics.registry.get_sample_value(name, {"outcome": outcome}) or 0.0


def end_with_webhook(database: Database, url: str) -> str:
    """A job that has ended, to be told to a URL. Returns the id of the delivery."""
    (job,) = add_jobs(database, webhook=url)
    end_well(database, job)
    (found,) = database.write_now(lambda tx: deliveries.find_page(tx, limit=2, job_id=job.id))
    return found.id


def look(database: Database, delivery_id: str) -> Delivery:
    return database.write_now(lambda tx: deliveries.find(tx, delivery_id))


def verify(asked: Any, secret: str) -> Any:
    """What a receiver with this secret makes of a request. Raises where it does not trust it."""
    return Webhook(secret).verify(asked.body, asked.headers)


async def test_a_delivery_is_verified_by_the_library_of_receivers(database, receiver):
    url = receiver.serve("/hook", answer(b"", status=204))
    delivery = end_with_webhook(database, url)
    sending = Sending(database)
    await sending.send_due()
    (asked,) = receiver.asked
    payload = verify(asked, OLD)
    assert asked.method == "POST"
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["webhook-id"] == delivery
    assert payload["type"] == "job.succeeded"
    assert payload["data"]["source"] == "cat.jpg"
    assert payload["data"]["results"] == [{"digest": "sha256:00"}]
    ended = look(database, delivery)
    assert (ended.state, ended.attempt) == (DeliveryState.DELIVERED, 1)
    assert ended.as_json()["status"] == 204
    assert sending.count("delivered") == 1


async def test_while_secrets_change_a_receiver_may_have_either(database, receiver):
    end_with_webhook(database, receiver.serve("/hook", answer(b"")))
    await Sending(database, webhook_secrets=f"{NEW},{OLD}").send_due()
    (asked,) = receiver.asked
    assert verify(asked, NEW) == verify(asked, OLD)
    assert asked.headers["webhook-signature"].count("v1,") == 2
    with pytest.raises(Exception, match="No matching signature"):
        verify(asked, "whsec_" + base64.b64encode(bytes(24)).decode())


async def test_a_receiver_that_fails_twice_is_told_a_third_time(database, receiver, clock):
    script = in_turn(answer(b"", status=500), answer(b"", status=503), answer(b""))
    delivery = end_with_webhook(database, receiver.serve("/hook", script))
    sending = Sending(database)
    for expected in (1, 2, 3):
        await sending.send_due()
        assert receiver.count("/hook") == expected
        await sending.send_due()  # nothing is due yet
        assert receiver.count("/hook") == expected
        clock.move(30)
    assert {asked.headers["webhook-id"] for asked in receiver.asked} == {delivery}
    for asked in receiver.asked:
        verify(asked, OLD)
    ended = look(database, delivery).as_json()
    assert ended["state"] == "delivered"
    assert [entry["status"] for entry in ended["log"]] == [500, 503, 200]
    assert (sending.count("retried"), sending.count("delivered")) == (2, 1)


async def test_attempts_go_on_for_a_day_and_then_end(database, receiver, clock):
    url = receiver.serve("/hook", answer(b"", status=500))
    delivery = end_with_webhook(database, url)
    sending = Sending(database)
    began = clock.now
    pauses = []
    while (found := look(database, delivery)).state is DeliveryState.PENDING:
        pauses.append(found.next_at - clock.now)
        clock.now = max(clock.now, found.next_at)
        await sending.send_due()
    assert receiver.count("/hook") == found.attempt == MOST_ATTEMPTS
    assert found.state is DeliveryState.FAILED
    assert 3 <= pauses[1] <= 7
    assert sorted(pauses) == pauses
    assert DAY / 2 < clock.now - began < DAY * 1.5
    assert sending.count("failed") == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_receiver_that_asks_for_a_pause_has_it(database, receiver, clock, form):
    later = datetime.fromtimestamp(clock.now, UTC) + timedelta(hours=1)
    asked = "3600" if form == "seconds" else show_http_date(later)
    script = answer(b"", status=429, retry_after=asked)
    delivery = end_with_webhook(database, receiver.serve("/hook", script))
    await Sending(database).send_due()
    assert look(database, delivery).next_at - clock.now == pytest.approx(3600, abs=2)


async def test_a_receiver_that_is_gone_is_told_no_more(database, receiver):
    delivery = end_with_webhook(database, receiver.serve("/hook", answer(b"", status=410)))
    await Sending(database).send_due()
    ended = look(database, delivery)
    assert (ended.state, ended.attempt) == (DeliveryState.FAILED, 1)


async def test_nothing_is_sent_that_no_secret_signs(database, receiver):
    delivery = end_with_webhook(database, receiver.serve("/hook", answer(b"")))
    await Sending(database, webhook_secrets="").send_due()
    ended = look(database, delivery)
    assert (ended.state, ended.attempt) == (DeliveryState.FAILED, 1)
    assert receiver.asked == []


async def test_a_receiver_is_not_told_the_query_of_a_source(database, receiver):
    url = receiver.serve("/hook", answer(b""))
    source = Ref(web.KIND, "https://host/cat.jpg?X-Amz-Signature=hush")
    (job,) = add_jobs(database, webhook=url, source=source)
    end_well(database, job)
    await Sending(database).send_due()
    (asked,) = receiver.asked
    assert verify(asked, OLD)["data"]["source"] == "https://host/cat.jpg"


async def test_a_redirect_is_not_followed(database, receiver):
    receiver.serve("/other", answer(b""))
    url = receiver.serve("/hook", redirect("/other", status=307))
    delivery = end_with_webhook(database, url)
    await Sending(database).send_due()
    assert receiver.count("/other") == 0
    assert look(database, delivery).state is DeliveryState.PENDING
    assert "redirects are not followed" in look(database, delivery).log


async def test_a_name_that_leads_to_a_private_address_is_not_told(database):
    delivery = end_with_webhook(database, "https://hooks.example/")
    names = Names({"hooks.example": ["10.0.0.1"]})
    await Sending(database, allow_private_networks=False, resolver=names).send_due()
    ended = look(database, delivery)
    assert ended.state is DeliveryState.FAILED
    assert "not public" in ended.as_json()["error"]


async def test_a_receiver_that_never_answers_keeps_no_other_waiting(
    database, receiver, monkeypatch
):
    monkeypatch.setattr(webhooks, "_TIMEOUT", 0.3)
    stalled = receiver.serve("/stalled", stall())
    quick = receiver.serve("/quick", answer(b"")).replace("127.0.0.1", "localhost")
    slow = [end_with_webhook(database, stalled) for _ in range(AT_ONCE)]
    end_with_webhook(database, quick)
    await Sending(database).send_due()
    paths = [asked.path for asked in receiver.asked]
    assert paths.index("/quick") <= 4
    for delivery in slow:
        found = look(database, delivery)
        assert found.state is DeliveryState.PENDING
        assert "did not answer" in found.as_json()["error"]


async def test_two_processes_tell_each_end_once(database, receiver, ledger_url):
    url = receiver.serve("/hook", answer(b""))
    sent = [end_with_webhook(database, url) for _ in range(40)]
    with open_ledger(ledger_url) as other:
        await asyncio.gather(Sending(database).send_due(), Sending(other).send_due())
    told = [asked.headers["webhook-id"] for asked in receiver.asked]
    assert sorted(told) == sorted(sent)


async def test_what_a_process_that_died_had_in_hand_is_sent_by_another(database, receiver, clock):
    delivery = end_with_webhook(database, receiver.serve("/hook", answer(b"")))
    now = clock.now
    taken = database.write_now(
        lambda tx: deliveries.claim(tx, limit=1, until=now + 60, now=now, in_hand={}, each=1)
    )
    assert [found.id for found in taken] == [delivery]
    await Sending(database).send_due()
    assert receiver.asked == []
    clock.move(61)
    await Sending(database).send_due()
    assert look(database, delivery).state is DeliveryState.DELIVERED
    # Should the first one live after all, it has no say any more.
    late = webhooks.Try(at=now, milliseconds=1, error="late")
    assert not database.write_now(
        lambda tx: deliveries.note(tx, taken[0], late, next_at=None, now=now)
    )


# --- what is accepted ---------------------------------------------------------------------------


def checked(url: str, **options: Any) -> str:
    return WebhookCheck(Settings(_env_file=None, **{"webhook_secrets": OLD} | options)).check(url)


def test_any_public_host_may_be_told_by_default():
    assert checked("https://hooks.example.com/a?token=b")


@pytest.mark.parametrize(
    ("url", "options", "error"),
    [
        ("https://10.0.0.1/", {}, SourceRefused),
        ("https://[::1]/", {}, SourceRefused),
        ("https://hooks.example.com:8443/", {}, SourceRefused),
        ("https://other.example.com/", {"webhook_hosts": "hooks.example.com"}, SourceRefused),
        ("https://user:word@hooks.example.com/", {}, InvalidRequest),
        ("ftp://hooks.example.com/", {}, InvalidRequest),
        ("hooks", {}, InvalidRequest),
        ("https://hooks.example.com/", {"webhook_secrets": ()}, InvalidRequest),
    ],
)
def test_other_webhooks_are_refused_by_name(url, options, error):
    with pytest.raises(error) as refused:
        checked(url, **options)
    assert refused.value.param == "webhook"


@pytest.mark.parametrize("secret", ["whsec_", "whsec_AAAA", "whsec_%%%", "secret", OLD + "!"])
def test_a_secret_that_is_none_stops_the_service(secret):
    with pytest.raises(ValueError, match="whsec_"):
        Settings(_env_file=None, webhook_secrets=secret)


# --- over HTTP ----------------------------------------------------------------------------------


@contextmanager
def served_with(folder: Path, **options: Any) -> Iterator[Served]:
    (folder / "originals").mkdir()
    (folder / "originals" / "cat.jpg").write_bytes(draw.jpeg(draw.quarters(60, 30)))
    with serving(
        originals=f"file:{folder / 'originals'}",
        results=f"file:{folder / 'results'}",
        database=f"sqlite:///{folder / 'pixelmill.db'}",
        **{"webhook_secrets": OLD, "webhook_hosts": "*:*", "allow_private_networks": True}
        | options,
    ) as served:
        yield served


def await_that(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_the_end_of_a_job_is_told_listed_and_told_again(tmp_path, receiver):
    url = receiver.serve("/hook?token=secret", answer(b""))
    with served_with(tmp_path) as served:
        body = {
            "source": "cat.jpg",
            "outputs": [{"transform": {"w": 20}}],
            "webhook": url,
            "metadata": {"order": 7},
        }
        job = served.client.post("/jobs", json=body).json()
        assert "secret" not in json.dumps(job)

        def delivered() -> Any:
            path = f"/webhooks/deliveries?state=delivered&job={job['id']}"
            return served.get(path).json()["items"]

        (delivery,) = await_that(delivered)
        payload = verify(receiver.asked[0], OLD)
        assert payload["type"] == "job.succeeded"
        assert payload["data"]["metadata"] == {"order": 7}
        assert payload["data"]["results"][0]["width"] == 20
        assert "secret" not in json.dumps(delivery)
        whole = served.get(delivery["links"]["self"]).json()
        assert whole["payload"] == payload

        again = served.client.post(delivery["links"]["replay"])
        assert again.status_code == 202
        assert served.client.post(delivery["links"]["replay"]).status_code == 409
        await_that(lambda: len(receiver.asked) == 2)
        ids = {asked.headers["webhook-id"] for asked in receiver.asked}
        assert ids == {delivery["id"]}
        (log,) = await_that(lambda: [d["log"] for d in delivered() if len(d["log"]) == 2])
        assert [entry["attempt"] for entry in log] == [1, 1]
        told = {"name": "pixelmill_webhook_deliveries_total", "outcome": "delivered"}
        await_that(lambda: served.metric(**told) == 2)  # counted once it is written down


def test_a_job_with_a_webhook_that_is_not_allowed_is_not_accepted(tmp_path):
    with served_with(tmp_path, allow_private_networks=False) as served:
        body = {"source": "cat.jpg", "outputs": [{}], "webhook": "http://169.254.169.254/"}
        answered = served.client.post("/jobs", json=body)
        assert answered.status_code == 403
        assert answered.json()["param"] == "webhook"
        assert served.get("/jobs").json()["items"] == []


def test_deliveries_are_paged(tmp_path, receiver, ledger_url):
    url = receiver.serve("/hook", answer(b""))
    with open_ledger(ledger_url) as database:
        made = [end_with_webhook(database, url) for _ in range(5)]
    with served_with(tmp_path) as served:
        found, path = [], "/webhooks/deliveries?limit=2"
        while path:
            page = served.get(path).json()
            found += [delivery["id"] for delivery in page["items"]]
            path = page.get("next")
        assert found == made[::-1]
        assert served.get("/webhooks/deliveries?state=gone").status_code == 400
        assert served.get("/webhooks/deliveries/none").status_code == 404
