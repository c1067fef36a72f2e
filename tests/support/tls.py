"""TLS in front of a server that does not speak it: what a client does is the same, and real."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# PostgreSQL 18, message formats: the requests that come before TLS, behind their length of 8.
_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
_GSS_REQUEST = (8).to_bytes(4, "big") + (80877104).to_bytes(4, "big")
CHUNK_BYTES = 1 << 16


class _Front:
    def __init__(self, port: int, context: ssl.SSLContext, *, asks_first: bool) -> None:
        self._server_port = port
        self._context = context
        self._asks_first = asks_first

    async def serve(self) -> asyncio.Server:
        return await asyncio.start_server(
            self._answer, "127.0.0.1", 0, ssl=None if self._asks_first else self._context
        )

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._asks_first:
                await self._agree_on_tls(reader, writer)
            behind = await asyncio.open_connection("127.0.0.1", self._server_port)
            await asyncio.gather(_pump(reader, behind[1]), _pump(behind[0], writer))
        except (OSError, asyncio.IncompleteReadError):
            pass  # a client that does not trust us hangs up
        finally:
            writer.close()

    async def _agree_on_tls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await reader.readexactly(8)) == _GSS_REQUEST:
            writer.write(b"N")
        if request != _SSL_REQUEST:
            raise ConnectionError("the client does not want TLS")
        writer.write(b"S")
        await writer.drain()
        await writer.start_tls(self._context)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    finally:
        writer.close()


@contextmanager
def tls_in_front_of(port: int, context: ssl.SSLContext, *, asks_first: bool = False) -> Iterator[int]:
    """Return a port of the loopback address that speaks TLS and passes on to `port`, which does not.

    With `asks_first` it waits to be asked for TLS, as PostgreSQL does.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    front = _Front(port, context, asks_first=asks_first)
    server = asyncio.run_coroutine_threadsafe(front.serve(), loop).result(10)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_ended(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _ended(server: asyncio.Server) -> None:
    """Listen no more, and end what is open."""
    server.close()
    open_still = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in open_still:
        task.cancel()
    await asyncio.gather(*open_still, return_exceptions=True)
