"""A wire between a process and a server that can be cut, slowed, or made to answer nonsense."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from enum import StrEnum

HOST = "127.0.0.1"
CHUNK_BYTES = 1 << 16
SLOW_S = 0.15
"""added to each chunk of a slow wire"""
_REFUSED = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>try later</Message></Error>'
_REFUSAL = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_REFUSED), _REFUSED)
)


class Wire(StrEnum):
    """What a proxy does with what passes."""

    WHOLE = "whole"
    CUT = "cut"
    """open connections end, new ones end at once"""
    SILENT = "silent"
    """connections stay open, nothing passes"""
    SLOW = "slow"
    REFUSING = "refusing"
    """an HTTP server's 503 to every request"""
    TRUNCATING = "truncating"
    """an answer ends in its middle"""


class Proxy:
    """Forwards a port of its own to a server's, in a thread of its own, as its wire lets it."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._wire = Wire.WHOLE
        self._changed: asyncio.Event
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._on_loop(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    def set(self, wire: Wire) -> None:
        """Make the wire so from now on; what is open ends, unless the wire is only slow, silent or whole."""
        self._on_loop(self._become(wire))

    def close(self) -> None:
        """End what is open, and listen no more."""
        self._on_loop(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _on_loop(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> asyncio.Server:
        self._changed = asyncio.Event()
        return await asyncio.start_server(self._serve, HOST, 0)

    async def _become(self, wire: Wire) -> None:
        self._wire = wire
        self._changed.set()
        self._changed = asyncio.Event()
        if wire in (Wire.CUT, Wire.REFUSING):
            self._hang_up()

    async def _end(self) -> None:
        self._wire = Wire.CUT
        self._changed.set()
        self._hang_up()
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _hang_up(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self._wire is Wire.CUT:
                writer.transport.abort()
            elif self._wire is Wire.REFUSING:
                await reader.read(CHUNK_BYTES)
                writer.write(_REFUSAL)
                await writer.drain()
            else:
                await self._forward(reader, writer)
        except OSError:
            writer.transport.abort()
        finally:
            self._open.discard(writer)
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, self._target_port)
        self._open.add(back)
        try:
            ways = [
                asyncio.create_task(self._pump(reader, back, Wire.SLOW)),
                asyncio.create_task(self._pump(there, writer, Wire.TRUNCATING)),
            ]
            _, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in left:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._open.discard(back)
            back.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, hurt: Wire) -> None:
        """Pass on what comes, until an end does; `hurt` is the wire that this direction suffers from."""
        with suppress(OSError):
            while chunk := await source.read(CHUNK_BYTES):
                while self._wire is Wire.SILENT:
                    await self._changed.wait()
                if self._wire is Wire.SLOW and hurt is Wire.SLOW:
                    await asyncio.sleep(SLOW_S)
                if self._wire is Wire.TRUNCATING and hurt is Wire.TRUNCATING:
                    sink.write(chunk[: len(chunk) // 2])
                    await sink.drain()
                    return
                sink.write(chunk)
                await sink.drain()
