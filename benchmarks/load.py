"""Requests to the service over many connections at once; the client's side of serving.py."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time


async def connection(host: str, port: int, bodies: list[bytes], until: float, took: list[float]):
    """Ask one thing after another on one connection; notes the seconds of each answer."""
    reader, writer = await asyncio.open_connection(host, port)
    while time.perf_counter() < until:
        body = random.choice(bodies)
        head = f"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        started = time.perf_counter()
        writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer.decode())
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        took.append(time.perf_counter() - started)
    writer.close()


async def main(host: str, port: int, connections: int, seconds: float, items: int, length: int):
    """Warm up, then load the service; prints answers a second and percentiles in milliseconds."""
    bodies = [
        json.dumps({"history": [f"i{random.randint(1, items)}" for _ in range(length)]}).encode()
        for _ in range(500)
    ]
    answers = 0
    for duration in (min(2.0, seconds), seconds):
        took: list[float] = []
        used = time.process_time()
        started = time.perf_counter()
        ways = (
            connection(host, port, bodies, started + duration, took) for _ in range(connections)
        )
        await asyncio.gather(*ways)
        passed, answers = time.perf_counter() - started, answers + len(took)
    took.sort()
    at = {f"p{p}": 1e3 * took[min(len(took) - 1, int(len(took) * p / 100))] for p in (50, 95, 99)}
    own = 1e3 * (time.process_time() - used) / len(took)
    rate = {"answers a second": len(took) / passed}
    print(json.dumps({**rate, **at, "client ms of processor an answer": own, "answers": answers}))


if __name__ == "__main__":
    given = sys.argv[1:]
    asyncio.run(main(given[0], *map(int, given[1:3]), float(given[3]), *map(int, given[4:6])))
