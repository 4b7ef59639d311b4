"""The process that decodes foreign documents: `python -m app.child`, started by `app.children`.

It imports the decoders once, confines itself and then forks for each document, which costs a few
milliseconds where a fresh interpreter costs a few hundred. It runs no libvips operation itself, so
it stays a process of one thread, which is what makes forking sound.

Orders come over a socket: `begin` with the socket of a document, and `end`, upon which the
document's process is killed, whatever it does. Each document has a process and a socket of its
own, over which frames go: a length of 4 bytes, then as many.

    parent  {"name": "svg", "page": 0, "seconds": 10}, then the document
    child   {"width": 800, "height": 600, ...}            what `foreign.measure` told
    parent  {"scale": 0.25, "seconds": 9.9}
    child   {"width": 200, "height": 150, "bands": 4}, then the pixels
    child   {"error": "broken_image", "detail": "..."}    in place of either answer
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from app import confinement
from transforms import foreign
from transforms.errors import (
    BrokenImage,
    InvalidOption,
    SourceTooLarge,
    TransformError,
    UnsupportedFormat,
)
from transforms.foreign_raster import Leaf
from transforms.shapes import Size

ORDER: Final = struct.Struct("!BQ")
"""An order: what to do, and the number of the document."""
BEGIN, END = 1, 2

FRAME: Final = struct.Struct("!I")
"""The length of a frame, which comes before it."""

ANSWER_BYTES: Final = 1 << 16
"""The longest answer, pixels aside."""

_COUNTS: Final = ("pages", "bands")
_FLAGS: Final = ("alpha", "scalable")
_LARGEST: Final = 1 << 31
_DETAIL: Final = 300
_REAP_SECONDS: Final = 0.05


def main() -> None:
    """Serve orders until the socket closes. Arguments: the socket's descriptor, bytes of memory."""
    descriptor, memory = int(sys.argv[1]), int(sys.argv[2])
    confinement.die_with_parent()
    control = socket.socket(fileno=descriptor)
    foreign.preload()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    applied = confinement.confine(memory=memory, read=confinement.readable())
    gc.freeze()  # what all share is not touched by the collector, so it is not copied
    _send(control, json.dumps(asdict(applied)).encode())
    with contextlib.suppress(KeyboardInterrupt):  # a terminal's interrupt is the parent's business
        _serve(control, nowhere, memory)


def _serve(control: socket.socket, nowhere: int, memory: int) -> None:
    running: dict[int, int] = {}
    ending: set[int] = set()
    while True:
        control.settimeout(_REAP_SECONDS if ending else None)
        try:
            order, descriptors, _, _ = socket.recv_fds(control, ORDER.size, 1)
        except TimeoutError:
            ending = {process for process in ending if os.waitpid(process, os.WNOHANG)[0] == 0}
            continue
        if not order:
            break
        what, number = ORDER.unpack(order)
        if what == BEGIN:
            with contextlib.suppress(OSError):  # no process to be had: its socket closes
                running[number] = _fork(control, descriptors[0], nowhere, memory)
            os.close(descriptors[0])
        elif number in running:
            # It has not been waited for, so its number is still its own.
            process = running.pop(number)
            os.kill(process, signal.SIGKILL)
            ending.add(process)
    for process in running.values():
        os.kill(process, signal.SIGKILL)


def _fork(control: socket.socket, descriptor: int, nowhere: int, memory: int) -> int:
    process = os.fork()
    if process:
        return process
    try:
        control.close()
        os.dup2(nowhere, 2)  # libraries print what they think of a document
        with socket.socket(fileno=descriptor) as connection:
            connection.settimeout(None)
            _decode(connection, memory)
    finally:
        os._exit(0)


def _decode(connection: socket.socket, memory: int) -> None:
    """Serve one document."""
    order = json.loads(_receive(connection))
    name, page = order["name"], order["page"]
    confinement.seal(seconds=order["seconds"])
    foreign.restrict(name)
    data = _receive(connection)
    try:
        with _alarm(order["seconds"]):
            leaf = foreign.measure(name, data, page)
        _send(connection, _answer_of(leaf))
        order = json.loads(_receive(connection))
        with _alarm(order["seconds"]):
            raster = foreign.draw(name, data, page=page, scale=order["scale"])
    except TransformError as error:
        _send(connection, _answer_of_error(error))
    except MemoryError:
        needed = f"The original needs more than {memory >> 20} MB to be decoded"
        _send(connection, _answer_of_error(BrokenImage(needed)))
    else:
        answer = {"width": raster.size.width, "height": raster.size.height, "bands": raster.bands}
        _send(connection, json.dumps(answer).encode())
        connection.sendall(raster.pixels)


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Have the kernel end this process should the parent, which keeps the time, not do so."""
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer_of(leaf: Leaf) -> bytes:
    answer = {"width": leaf.size.width, "height": leaf.size.height}
    return json.dumps(answer | {key: getattr(leaf, key) for key in _COUNTS + _FLAGS}).encode()


def _answer_of_error(error: TransformError) -> bytes:
    return json.dumps({"error": error.code, "detail": error.detail}).encode()


def parse_answer(data: bytes) -> dict[str, Any]:
    """The parent's side: an answer as it came. Raises the error that it tells, or BrokenImage."""
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        raise wrong_answer() from None
    if not isinstance(answer, dict):
        raise wrong_answer()
    if "error" not in answer:
        return answer
    detail = str(answer.get("detail"))[:_DETAIL]
    detail = "".join(letter if letter.isprintable() else " " for letter in detail)
    match answer["error"]:
        case UnsupportedFormat.code:
            raise UnsupportedFormat(detail)
        case SourceTooLarge.code:
            raise SourceTooLarge(detail)
        case InvalidOption.code:
            raise InvalidOption("page", detail)
        case _:
            raise BrokenImage(detail)


def parse_leaf(data: bytes) -> Leaf:
    """The parent's side: what was measured. Raises as `parse_answer` does."""
    answer = parse_answer(data)
    numbers: dict[str, Any] = {key: answer.get(key) for key in ("width", "height", *_COUNTS)}
    flags: dict[str, Any] = {key: answer.get(key) for key in _FLAGS}
    if any(type(value) is not int or not 0 < value < _LARGEST for value in numbers.values()):
        raise wrong_answer()
    if any(type(value) is not bool for value in flags.values()):
        raise wrong_answer()
    size = Size(numbers.pop("width"), numbers.pop("height"))
    return Leaf(size=size, **numbers, **flags)


def parse_bands(data: bytes, size: Size) -> int:
    """The parent's side: how many bands of this size follow. Raises as `parse_answer` does."""
    answer = parse_answer(data)
    bands = answer.get("bands")
    if (answer.get("width"), answer.get("height")) != (size.width, size.height):
        raise wrong_answer()
    if type(bands) is not int or bands not in (1, 2, 3, 4):
        raise wrong_answer()
    return bands


def wrong_answer() -> BrokenImage:
    """What is told where a process answers what it never would."""
    return BrokenImage("The original could not be decoded: its decoder gave a wrong answer")


def _send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(FRAME.pack(len(data)) + data)


def _receive(connection: socket.socket) -> bytes:
    (length,) = FRAME.unpack(_receive_exactly(connection, FRAME.size))
    return _receive_exactly(connection, length)


def _receive_exactly(connection: socket.socket, length: int) -> bytes:
    received = connection.recv(length, socket.MSG_WAITALL)  # one piece, which is not copied
    if len(received) < length:
        raise EOFError
    return received


if __name__ == "__main__":
    main()
