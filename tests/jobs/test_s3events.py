"""What stores tell is read from the shapes in which they tell it, and from no others."""

from __future__ import annotations

import json
from contextlib import suppress
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.jobs import s3events
from app.jobs.s3events import MOST_RECORDS, Kind, Message, parse
from tests.jobs import told

KEYS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=60
).filter(lambda key: len(quote_plus(key)) <= 1024)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=20,
)
SHAPES = [
    told.s3(),
    told.sns(told.s3()),
    told.sns(told.sns(told.s3())),
    told.event_bridge(),
    told.minio(),
    told.ceph(),
    told.seaweedfs(),
]
NAMES = ["s3", "sns", "sns in sns", "event bridge", "minio", "ceph", "seaweedfs"]


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_every_shape_tells_of_the_same_object(shape):
    (event,) = parse(shape).events
    assert (event.bucket, event.key, event.kind) == (told.BUCKET, "in/cat.jpg", Kind.CREATED)
    assert event.version == told.ETAG
    assert int(event.sequencer, 16) > 0
    assert s3events.read_message(json.dumps(shape)) == parse(shape)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (told.s3(name="ObjectCreated:CompleteMultipartUpload"), Kind.CREATED),
        (told.s3(name="ObjectCreated:Copy"), Kind.CREATED),
        (told.s3(name="ObjectRemoved:Delete", etag=None), Kind.REMOVED),
        (told.s3(name="ObjectRemoved:DeleteMarkerCreated"), Kind.REMOVED),
        (told.s3(name="LifecycleExpiration:Delete", etag=None), Kind.REMOVED),
        (told.event_bridge(name="Object Deleted"), Kind.REMOVED),
        (told.minio(name="s3:ObjectRemoved:Delete"), Kind.REMOVED),
        (told.ceph(name="s3:ObjectRemoved:Delete"), Kind.REMOVED),
        (told.ceph(name="ceph:ObjectCreated:Put"), Kind.CREATED),
        (told.ceph(name="ObjectLifecycle:Expiration:Current"), Kind.REMOVED),
        (told.seaweedfs(name="update"), Kind.CREATED),
        (told.seaweedfs(name="delete"), Kind.REMOVED),
    ],
)
def test_what_was_written_and_what_was_removed_are_told_apart(shape, kind):
    assert [event.kind for event in parse(shape).events] == [kind]


@pytest.mark.parametrize(
    "shape",
    [
        told.s3(name="ObjectTagging:Put"),
        told.s3(name="ObjectRestore:Completed"),
        told.s3(name="Replication:OperationFailedReplication"),
        told.minio(name="s3:ObjectAccessed:Get"),
        told.ceph(name="ObjectLifecycle:Expiration:NonCurrent"),
        told.event_bridge(name="Object Tags Added"),
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": told.BUCKET},
        told.sns({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": told.BUCKET}),
        {"Type": "UnsubscribeConfirmation", "TopicArn": "arn", "SubscribeURL": "https://x"},
        told.seaweedfs(".uploads/abc/0001.part"),
        {**told.seaweedfs(), "key": "/etc/iam/identity.json"},
        {**told.seaweedfs(), "key": "/buckets/.system/owners/x"},
        {**told.seaweedfs(), "message": {"new_entry": {"name": "in", "is_directory": True}}},
    ],
)
def test_what_is_about_other_things_is_counted_and_no_error(shape):
    assert parse(shape) == Message(ignored=1)


def test_a_subscription_asks_to_be_confirmed():
    url = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=1"
    assert parse(told.subscription(url)) == Message(confirm=url)


def test_a_file_that_was_moved_is_gone_from_where_it_was():
    moved = told.seaweedfs("old/cat.jpg", name="rename")
    moved["message"]["old_entry"] = moved["message"]["new_entry"]
    moved["message"]["new_parent_path"] = f"/buckets/{told.BUCKET}/new"
    assert [(event.kind, event.key) for event in parse(moved).events] == [
        (Kind.REMOVED, "old/cat.jpg"),
        (Kind.CREATED, "new/cat.jpg"),
    ]


def test_the_sequencers_of_ceph_follow_each_other_in_time():
    """It writes the bytes of seconds and nanoseconds as they lie in memory."""
    sequencers = ["FFE6D75D00000000", "00E7D75DFFFFFF00", "00E7D75D00000001"]
    numbers = []
    for sequencer in sequencers:
        shape = told.ceph()
        shape["Records"][0]["s3"]["object"]["sequencer"] = sequencer
        numbers.append(int(parse(shape).events[0].sequencer, 16))
    assert numbers == sorted(numbers)


@settings(max_examples=40)
@given(key=KEYS)
def test_a_key_comes_out_as_it_was(key):
    for shape in (told.s3(quote_plus(key, safe="/")), told.minio(quote_plus(key)), told.ceph(key)):
        assert parse(shape).events[0].key == key
    assert parse(told.s3(quote(key))).events[0].key == key
    assert parse(told.event_bridge(key)).events[0].key == key


@settings(max_examples=60)
@given(document=JSON)
def test_whatever_is_sent_is_read_or_refused(document):
    with suppress(InvalidRequest):
        parse(document)


@settings(max_examples=60)
@given(
    shape=st.sampled_from([*SHAPES, told.subscription("https://sns.eu-west-1.amazonaws.com/")]),
    data=st.data(),
)
def test_a_shape_of_which_any_part_is_another_is_read_or_refused(shape, data):
    changed = json.loads(json.dumps(shape))
    holder = changed
    for _ in range(data.draw(st.integers(1, 6))):
        names = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not names:
            break
        name = data.draw(st.sampled_from(names))
        if isinstance(holder[name], dict | list) and data.draw(st.booleans()):
            holder = holder[name]
            continue
        holder[name] = data.draw(JSON)
        break
    events = ()
    with suppress(InvalidRequest):
        events = parse(changed).events
    for event in events:
        assert event.bucket
        assert event.key
        assert event.sequencer is None or int(event.sequencer, 16) >= 0


@pytest.mark.parametrize(
    ("shape", "param"),
    [
        ({"Records": {}}, "Records"),
        ({"Records": [None]}, "Records[0].eventName"),
        ({"Records": [{"eventName": "ObjectCreated:Put"}]}, "Records[0].s3"),
        (told.s3(bucket=""), "Records[0].s3.bucket.name"),
        (told.s3(""), "Records[0].s3.object.key"),
        (told.s3("%FF.jpg"), "Records[0].s3.object.key"),
        (told.s3("k" * 5000), "Records[0].s3.object.key"),
        (told.s3(etag="x y"), "Records[0].s3.object.eTag"),
        (told.event_bridge(""), "detail.object.key"),
        ({**told.sns({}), "Message": "no json"}, None),
        (told.sns(told.sns(told.sns(told.sns(told.s3())))), "Message"),
        (told.subscription(""), "SubscribeURL"),
        ({"Records": told.s3()["Records"] * (MOST_RECORDS + 1)}, "Records"),
        ({}, None),
        ([], None),
    ],
)
def test_what_breaks_a_shape_is_named(shape, param):
    with pytest.raises(InvalidRequest) as caught:
        parse(shape)
    assert caught.value.param == param


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(InvalidRequest):
        s3events.read_message(text)
