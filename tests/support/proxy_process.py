"""The proxy's own process: forwards bytes and does harm on command. Run by `proxy.Proxy`, never imported.

Takes one JSON object a line on standard input, answers each with one on standard output, ends at end of file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import sys
from typing import Any

CHUNK = 65536
Line = asyncio.Queue[tuple[float, bytes]]  # when a piece arrives at the other end, and the piece
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, with RST


class Direction:
    """What happens to bytes one way: `up` is towards the server."""

    def __init__(self) -> None:
        self.mode = "pass"  # pass | stall (not read) | drop (read, thrown away)
        self.delay_s = 0.0
        self.rate: int | None = None  # bytes a second
        self.cut_after: int | None = None  # bytes, over all connections
        self.cuts: list[int] = []  # the same, each once
        self.flip = False  # one bit of each piece that passes
        self.bytes = 0
        self.open = asyncio.Event()
        self.open.set()

    def set(self, settings: dict[str, Any]) -> None:
        for name, value in settings.items():
            setattr(self, name, value)
        (self.open.clear if self.mode == "stall" else self.open.set)()


class Relay:
    def __init__(self, upstream: tuple[str, int] | None, greeting: bytes, *, flood: bool) -> None:
        self.upstream = upstream
        self.greeting = greeting
        self.flood = flood
        self.ways = {"up": Direction(), "down": Direction()}
        self.links: set[asyncio.StreamWriter] = set()
        self.accepted = 0
        self.turns = 0  # times that something went up after something had come down: round trips
        self.last = "down"
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.links.add(writer)
        with contextlib.suppress(OSError):
            if self.greeting:
                writer.write(self.greeting)
                while self.flood:
                    await writer.drain()
                    writer.write(self.greeting)
            if self.upstream is None:
                await reader.read()
                return
            there, back = await asyncio.open_connection(*self.upstream)
            self.links.add(back)
            lines: tuple[Line, Line] = (asyncio.Queue(64), asyncio.Queue(64))
            ways = (("up", reader, back), ("down", there, writer))
            await asyncio.gather(
                *(
                    self.pump(name, source, target, line)
                    for (name, source, target), line in zip(ways, lines, strict=True)
                ),
                *(self.deliver(line, target) for (_, _, target), line in zip(ways, lines, strict=True)),
            )
            back.close()
        writer.close()

    async def pump(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: Line
    ) -> None:
        way = self.ways[name]
        while True:
            await way.open.wait()
            data = await reader.read(max(1, way.rate // 10) if way.rate else CHUNK)
            await way.open.wait()
            if not data:
                break
            limit = way.cuts[0] if way.cuts else way.cut_after
            if limit is not None and way.bytes + len(data) >= limit:
                way.cuts = way.cuts[1:]
                data = data[: limit - way.bytes]
                way.bytes += len(data)
                writer.write(data)
                await writer.drain()
                self.cut(reset=True)
                return
            way.bytes += len(data)
            self.turns += name == "up" and self.last == "down"
            self.last = name
            if way.flip:
                data = data[:-1] + bytes([data[-1] ^ 1])
            if way.rate:
                await asyncio.sleep(len(data) / way.rate)
            if way.mode != "drop":
                await line.put((asyncio.get_running_loop().time() + way.delay_s, data))
        await line.put((0.0, b""))

    async def deliver(self, line: Line, writer: asyncio.StreamWriter) -> None:
        """What was read arrives in order, each piece when its delay is over: the line is long, not narrow."""
        while True:
            due, data = await line.get()
            if not data:
                break
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    def cut(self, *, reset: bool) -> None:
        for writer in self.links:
            if reset:
                with contextlib.suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort() if reset else writer.close()
        self.links.clear()

    def command(self, order: dict[str, Any]) -> dict[str, Any]:
        for name, way in self.ways.items():
            way.set(order.get(name, {}))
        if "upstream" in order:
            self.upstream = tuple(order["upstream"])
        if "cut" in order:
            self.cut(reset=order["cut"] == "rst")
        counts = {"up": self.ways["up"].bytes, "down": self.ways["down"].bytes}
        return {**counts, "accepted": self.accepted, "turns": self.turns}


async def main() -> None:
    settings = json.loads(sys.argv[1])
    upstream = tuple(settings["upstream"]) if settings["upstream"] else None
    relay = Relay(upstream, settings["greeting"].encode("latin-1"), flood=settings["flood"])
    listener = socket.socket(socket.AF_INET6 if ":" in settings["address"] else socket.AF_INET)
    if settings["buffer"]:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, settings["buffer"])
        # Loopback's segments of 64 KiB would each be more than the whole buffer, and be taken all the same.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
    listener.bind((settings["address"], 0))
    server = await asyncio.start_server(relay.serve, sock=listener, limit=settings["buffer"] or CHUNK)
    answer({"port": listener.getsockname()[1]})
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
    )
    while line := await orders.readline():
        answer(relay.command(json.loads(line)))
    server.close()
    relay.cut(reset=True)


def answer(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
