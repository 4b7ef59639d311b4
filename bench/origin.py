"""An origin on the web that sends its pictures by drops: each takes longer than anybody waits."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import suppress
from typing import Final

READY: Final = "/ready"
_LENGTH: Final = 5_000_000
_DROP: Final = 512
_PAUSE: Final = 0.25
_BEGINNING: Final = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        if head.split()[1].decode() == READY:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/jpeg\r\n")
            writer.write(b"content-length: %d\r\n\r\n" % _LENGTH + _BEGINNING)
            while not writer.is_closing():
                await asyncio.sleep(_PAUSE)
                writer.write(bytes(_DROP))
                await writer.drain()
        writer.close()


async def _main(port: int) -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(_main(parser.parse_args().port))
