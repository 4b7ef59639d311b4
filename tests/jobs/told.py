"""What stores tell, in the shapes in which each tells it."""

from __future__ import annotations

import json
from typing import Any

BUCKET = "pictures"
ETAG = "d41d8cd98f00b204e9800998ecf8427e"


def s3(
    key: str = "in/cat.jpg",
    *,
    name: str = "ObjectCreated:Put",
    bucket: str = BUCKET,
    etag: str | None = ETAG,
    sequencer: str | None = "0055AED6DCD90281E5",
    source: str = "aws:s3",
) -> dict[str, Any]:
    """A notification of S3, whose key is written as in a form by whoever calls."""
    found = {"key": key, "size": 1024, "eTag": etag, "sequencer": sequencer}
    record = {
        "eventVersion": "2.1",
        "eventSource": source,
        "awsRegion": "eu-west-1",
        "eventTime": "2025-01-01T00:00:00.000Z",
        "eventName": name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "all",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {name: value for name, value in found.items() if value is not None},
        },
    }
    return {"Records": [record]}


def sns(message: Any) -> dict[str, Any]:
    """A message in the envelope of SNS."""
    return {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:eu-west-1:123456789012:pictures",
        "Subject": "Amazon S3 Notification",
        "Message": json.dumps(message),
        "Timestamp": "2025-01-01T00:00:00.000Z",
    }


def subscription(url: str) -> dict[str, Any]:
    """What SNS sends first."""
    return {
        "Type": "SubscriptionConfirmation",
        "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
        "Token": "2336412f37",
        "TopicArn": "arn:aws:sns:eu-west-1:123456789012:pictures",
        "Message": "You have chosen to subscribe to the topic.",
        "SubscribeURL": url,
    }


def event_bridge(key: str = "in/cat.jpg", *, name: str = "Object Created") -> dict[str, Any]:
    """An event of S3 by way of EventBridge, which writes keys as they are."""
    return {
        "version": "0",
        "detail-type": name,
        "source": "aws.s3",
        "resources": [f"arn:aws:s3:::{BUCKET}"],
        "detail": {
            "version": "0",
            "bucket": {"name": BUCKET},
            "object": {"key": key, "size": 1024, "etag": ETAG, "sequencer": "00617F08299329D189"},
        },
    }


def minio(key: str = "in%2Fcat.jpg", *, name: str = "s3:ObjectCreated:Put") -> dict[str, Any]:
    """What MinIO's webhook sends: it writes the slashes of keys as in a form, too."""
    told = s3(key, name=name, source="minio:s3", sequencer="14E11E32397D42C4")
    return {"EventName": name, "Key": f"{BUCKET}/in/cat.jpg", **told}


def ceph(key: str = "in/cat.jpg", *, name: str = "ObjectCreated:Put") -> dict[str, Any]:
    """What Ceph's gateway sends: keys as they are."""
    return s3(key, name=name, source="ceph:s3", sequencer="F7E6D75DC742D108")


def seaweedfs(key: str = "in/cat.jpg", *, name: str = "create") -> dict[str, Any]:
    """What the webhook of SeaweedFS's filer sends of a file."""
    folder, _, file = f"/buckets/{BUCKET}/{key}".rpartition("/")
    entry = {
        "name": file,
        "chunks": [{"size": 5, "modified_ts_ns": 1795529845093796627, "e_tag": "XUFAKrxLKg=="}],
        "attributes": {"file_size": 1024, "mtime": 1795529845, "md5": "1B2M2Y8AsgTpgAmY7PhCfg=="},
        "extended": {"Seaweed-X-Amz-ETag": "ZDQxZDhjZDk4ZjAwYjIwNGU5ODAwOTk4ZWNmODQyN2U="},
    }
    message = {"old_entry": entry} if name == "delete" else {"new_entry": entry}
    return {
        "event_type": name,
        "key": f"{folder}/{file}",
        "message": {**message, "new_parent_path": folder, "signatures": [-595124647]},
    }
