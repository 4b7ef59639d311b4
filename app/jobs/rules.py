"""Rules: what becomes of originals as they arrive.

Stores tell of them (`intake`), or are looked through from time to time (`polling`). A rule is kept
in the ledger as it was sent; one that is replaced by another sees all originals for the first time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from pydantic import Field

from app.errors import InvalidRequest, RecordConflict, RecordMissing
from app.jobs.bodies import validate
from app.jobs.database import Connection, Database, upsert
from app.jobs.ids import new_id
from app.jobs.records import Draft, shown_time
from app.jobs.runner import FROM_RULE
from app.jobs.schema import rules
from app.jobs.spec import Options, Outputs, SpecReader
from app.settings import Place
from app.stores.base import MAX_KEY, can_begin_key, is_key

MOST_RULES: Final = 500
"""All of them are looked at for each event."""
_ANY_DUE: Final = sa.select(rules.c.id).where(rules.c.poll_at <= sa.bindparam("now")).limit(1)
_SOONEST: Final = 1.0
_LATEST: Final = 7 * 86_400.0
_SAMPLE: Final = "sample.jpg"


class RuleBody(Options):
    """A rule: which originals, and what is made of each."""

    bucket: str | None = Field(
        None, max_length=255, description="The bucket of originals, if you like to name it."
    )
    prefix: str = Field("", max_length=MAX_KEY, description="How the ids begin.")
    suffix: str = Field("", max_length=255, description="How the ids end.")
    outputs: Outputs = Field(description="The results that are made of each original.")
    poll: float | None = Field(
        None,
        ge=_SOONEST,
        le=_LATEST,
        description="Look through the store every so many seconds, where it tells nothing itself.",
    )
    backfill: bool = Field(
        default=False, description="Take in what was there before the rule, once."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule as it is in the ledger. Times are seconds since the epoch.

    `since` is when it was made, or replaced another of its id.
    """

    id: str
    since: float
    body: RuleBody
    poll_at: float | None
    cursor: str | None

    def matches(self, key: str) -> bool:
        """Whether an original is for this rule."""
        return key.startswith(self.body.prefix) and key.endswith(self.body.suffix)

    def draft(self, reader: SpecReader, key: str, *, now: float) -> Draft:
        """The job that the rule makes of an original. Raises InvalidRequest, TargetRefused."""
        body = self.body
        return reader.draft(key, body.outputs, body, now=now, origin=f"{FROM_RULE}{self.id}")

    def as_json(self) -> dict[str, Any]:
        """What a client is told."""
        shown = {
            "id": self.id,
            "since": shown_time(self.since),
            **self.body.model_dump(exclude_unset=True),
            "next_poll_at": shown_time(self.poll_at),
        }
        return {name: value for name, value in shown.items() if value is not None}


class Rules:
    """The rules of one service. `place` is where its originals are."""

    def __init__(self, database: Database, reader: SpecReader, place: Place) -> None:
        self._database = database
        self._reader = reader
        self._place = place

    async def create(self, body: Any) -> Rule:
        """Keep a rule under a new id. Raises InvalidRequest, TargetRefused, RecordConflict."""
        rule, _ = await self.put(new_id(), body)
        return rule

    async def put(self, rule_id: str, body: Any) -> tuple[Rule, bool]:
        """Keep a rule under an id; to send the same again changes nothing. Whether it is new.

        Raises InvalidRequest, TargetRefused, RecordConflict.
        """
        read = self._read(body)
        return await self._database.write(lambda tx: put(tx, rule_id, read, now=time.time()))

    async def find(self, rule_id: str) -> Rule:
        """The rule of an id. Raises RecordMissing."""
        return await self._database.read(lambda tx: find(tx, rule_id))

    async def find_all(self) -> list[Rule]:
        """Every rule, by its id."""
        return await self._database.read(find_all)

    async def delete(self, rule_id: str) -> None:
        """Forget a rule; its jobs stay. It is no error when there is none."""
        await self._database.write(lambda tx: tx.execute(rules.delete().where(_is(rule_id))))

    def _read(self, body: Any) -> RuleBody:
        read: RuleBody = validate(RuleBody, body)
        place = self._place
        if read.bucket is not None and place.kind != "s3":
            raise InvalidRequest("bucket: the originals are in a folder", param="bucket")
        if read.bucket is not None and read.bucket != place.location:
            raise InvalidRequest(
                f"bucket must be the one of the originals, {place.location}: others have no ids",
                param="bucket",
            )
        if read.poll is None and not read.backfill and place.kind != "s3":
            raise InvalidRequest(
                "poll is needed where the originals are in a folder, which tells nothing itself",
                param="poll",
            )
        if read.prefix and not can_begin_key(read.prefix):
            raise InvalidRequest("prefix: no id begins with it", param="prefix")
        if not is_key(f"x{read.suffix}"):
            raise InvalidRequest("suffix: no id ends with it", param="suffix")
        self._reader.check_apart(read.outputs)
        self._reader.draft(_SAMPLE, read.outputs, read, now=0.0)
        return read


def put(tx: Connection, rule_id: str, body: RuleBody, *, now: float) -> tuple[Rule, bool]:
    """Keep a rule. Whether it is new. Raises RecordConflict where there are too many."""
    known = _first(tx, rule_id)
    if known is not None and known.body == body:
        return known, False
    if known is None:
        count = tx.execute(sa.select(sa.func.count()).select_from(rules)).scalar_one()
        if count >= MOST_RULES:
            raise RecordConflict(f"There are {MOST_RULES} rules already: all that there may be")
    upsert(
        tx,
        rules,
        id=rule_id,
        created_at=now,
        spec=json.dumps(body.model_dump(exclude_unset=True)),
        poll_at=now if body.poll is not None or body.backfill else None,
        cursor=None,
    )
    return find(tx, rule_id), known is None


def find(tx: Connection, rule_id: str) -> Rule:
    """The rule of an id. Raises RecordMissing."""
    rule = _first(tx, rule_id)
    if rule is None:
        raise RecordMissing(f"There is no rule {rule_id[:64]!r}")
    return rule


def find_all(tx: Connection) -> list[Rule]:
    """Every rule, by its id."""
    return [_rule(row) for row in tx.execute(sa.select(rules).order_by(rules.c.id))]


def is_any_due(tx: Connection, *, now: float) -> bool:
    """Whether a store is to be looked through for some rule."""
    return tx.execute(_ANY_DUE, {"now": now}).first() is not None


def claim(tx: Connection, *, until: float, now: float) -> Rule | None:
    """Take a rule whose store is to be looked through now: it is nobody else's until then."""
    due = sa.select(rules).where(rules.c.poll_at <= now).order_by(rules.c.poll_at).limit(1)
    row = tx.execute(due).first()
    if row is None:
        return None
    rule = _rule(row)
    return find(tx, rule.id) if move(tx, rule, poll_at=until, cursor=row.cursor) else None


def move(tx: Connection, rule: Rule, *, poll_at: float | None, cursor: str | None) -> bool:
    """Note how far a look has come. False where the rule is no longer as it was: nothing is."""
    changed = tx.execute(
        rules.update()
        .where(_is(rule.id), rules.c.created_at == rule.since, rules.c.poll_at == rule.poll_at)
        .values(poll_at=poll_at, cursor=cursor)
    )
    return bool(changed.rowcount)


def matching(found: Sequence[Rule], key: str) -> list[Rule]:
    """The rules that an original is for."""
    return [rule for rule in found if rule.matches(key)]


def _first(tx: Connection, rule_id: str) -> Rule | None:
    row = tx.execute(sa.select(rules).where(_is(rule_id))).first()
    return None if row is None else _rule(row)


def _is(rule_id: str) -> sa.ColumnElement[bool]:
    return rules.c.id == rule_id


def _rule(row: Any) -> Rule:
    return Rule(
        id=row.id,
        since=row.created_at,
        body=_body(row.spec),
        poll_at=row.poll_at,
        cursor=row.cursor,
    )


@lru_cache(maxsize=MOST_RULES)
def _body(spec: str) -> RuleBody:
    return RuleBody(**json.loads(spec))
