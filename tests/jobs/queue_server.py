"""A queue that speaks SQS's JSON protocol on loopback: it can be away, and hands out what is not
deleted once more when it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class QueueServer:
    """The messages that wait, and those that were handed out and not deleted, by their receipts."""

    endpoint: str = ""
    away: bool = False
    calls: int = 0
    waiting: list[tuple[str, str]] = field(default_factory=list)
    in_hand: dict[str, tuple[str, str]] = field(default_factory=dict)
    _count: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"{self.endpoint}/123456789012/pictures"

    def send(self, message: Any) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        with self._changed:
            self._count += 1
            self.waiting.append((f"m{self._count}", text))
            self._changed.notify_all()

    def hand_out_again(self) -> None:
        """What a queue does when the time has passed for which a message was nobody else's."""
        with self._changed:
            self.waiting += self.in_hand.values()
            self.in_hand.clear()
            self._changed.notify_all()

    def answer(self, action: str, asked: dict[str, Any]) -> dict[str, Any]:
        with self._changed:
            self.calls += 1
            assert asked["QueueUrl"] == self.url
            if action == "AmazonSQS.DeleteMessageBatch":
                for entry in asked["Entries"]:
                    self.in_hand.pop(entry["ReceiptHandle"], None)
                return {"Successful": [{"Id": e["Id"]} for e in asked["Entries"]], "Failed": []}
            assert action == "AmazonSQS.ReceiveMessage"
            assert asked["WaitTimeSeconds"] == 20
            self._changed.wait_for(lambda: self.waiting, timeout=0.3)
            most = asked["MaxNumberOfMessages"]
            given, self.waiting = self.waiting[:most], self.waiting[most:]
            receipts = {f"r{self.calls}-{name}": (name, body) for name, body in given}
            self.in_hand |= receipts
            return {
                "Messages": [
                    {"MessageId": name, "ReceiptHandle": receipt, "Body": body}
                    for receipt, (name, body) in receipts.items()
                ]
            }


@contextmanager
def queue_serving() -> Iterator[QueueServer]:
    """Run a queue until the block ends."""
    queue = QueueServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if queue.away:
                self._answer(503, {"__type": "ServiceUnavailable"})
                return
            self._answer(200, queue.answer(self.headers["x-amz-target"], json.loads(body)))

        def _answer(self, status: int, told: dict[str, Any]) -> None:
            data = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-type", "application/x-amz-json-1.0")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            del args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    queue.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield queue
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
