"""Attacks on the framing and on patience: what HTTP clients do not send, and what never ends."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
from collections.abc import Mapping

from scripts.attacks_peers import RICH, Duel
from scripts.attacks_table import Attack, Seen, row
from scripts.attacks_wire import Talk, changed, plain, signed, talk

__all__ = ["ATTACKS", "HOLD_S", "slow"]

HOLD_S = 20.0
_HEADERS = (70_000, 400_000, 2_000_000)
_LARGE = 33_600_000  # bytes of a body, a million more than any wire has a use for
_HIDDEN = b"GET /Hidden HTTP/1.1\r\nhost: inside\r\n\r\n"
_SIGNATURE = "bt_header_dendrite_signature"


def slow(hold_s: float = HOLD_S) -> tuple[Attack, Attack]:
    """Headers and a body that never end, held for `hold_s` at most."""

    async def headers(side: Duel) -> Seen:
        start = b"POST /ImageSynapse HTTP/1.1\r\nhost: m\r\nx-slow: "
        return await _held(side, start, hold_s)

    async def body(side: Duel) -> Seen:
        return await _held(side, plain(signed(RICH, side.miner.hotkey))[:-1000], hold_s)

    return Attack("slow headers, a byte a second", headers), Attack("slow body, a byte a second", body)


async def _held(side: Duel, start: bytes, hold_s: float) -> Seen:
    reader, writer = await asyncio.open_connection(*side.miner.address)
    began = asyncio.get_running_loop().time()
    ended = b""

    async def drip() -> None:
        writer.write(start)
        while True:
            await asyncio.sleep(1.0)
            writer.write(b"x")

    dripping = asyncio.ensure_future(drip())
    try:
        async with asyncio.timeout(hold_s):
            ended = await reader.read(2**16)
    except TimeoutError:
        seconds = asyncio.get_running_loop().time() - began
        return row(f"held open > {hold_s:g} s", True, seconds=seconds)
    except ConnectionError:
        ended = b""
    finally:
        dripping.cancel()
        writer.close()
        await asyncio.gather(dripping, return_exceptions=True)
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    seconds = asyncio.get_running_loop().time() - began
    how = f"refused {ended[9:12].decode('latin-1')}" if ended else "closed"
    return row(f"{how} after {seconds:.1f} s", False, seconds=seconds)


async def large_body(side: Duel) -> Seen:
    request = signed(RICH, side.miner.hotkey, payload=bytes(_LARGE * 3 // 4))
    answer = await talk(side.miner.address, request, patience_s=30.0)
    return row(f"{answer.text} ({len(request.body) / 1e6:.1f} MB)", answer.served, status=answer.status)


async def oversized(side: Duel) -> Seen:
    """One long header on an honest request: a defect is a head without a bound, one read more is not."""
    told: dict[int, Talk] = {}
    for size in _HEADERS:
        told[size] = await talk(side.miner.address, changed(signed(RICH, side.miner.hotkey), x="y" * size))
    text = ", ".join(f"{size // 1000} KB {answer.text}" for size, answer in told.items())
    statuses = {str(size): answer.status for size, answer in told.items()}
    return row(text, told[_HEADERS[-1]].served, statuses=statuses)


def smuggled(title: str, *framing: bytes, body: bytes) -> Attack:
    """A request with two lengths: a defect is an answer to what one of them hides, or none that ends the connection."""

    async def run(side: Duel) -> Seen:
        head = b"\r\n".join((b"POST /ImageSynapse HTTP/1.1", b"host: m", *framing, b"", b""))
        answer = await talk(side.miner.address, head + body, patience_s=3.0, linger_s=1.0)
        count = len(answer.answers)
        more = f", {count} answers" if count > 1 else ""
        end = ", closed" if answer.closed and count else ", kept open" if count else ""
        text, defect = answer.text + more + end, count > 1 or not answer.closed
        return row(text, defect, statuses=[a.status for a in answer.answers], closed=answer.closed)

    return Attack(title, run)


async def duplicated(side: Duel) -> Seen:
    """Two signatures, one of them true: a defect is a later copy that overrules what a proxy checked in the first.

    The other order is shown and not judged: that the first counts is a rule as good as refusing both.
    """
    told: dict[str, Talk] = {}
    for order, wrong_first in (("false, true", True), ("true, false", False)):
        request = signed(RICH, side.miner.hotkey)
        line = f"{_SIGNATURE}: {request.headers[_SIGNATURE]}\r\n".encode()
        wrong = f"{_SIGNATURE}: 0x{'17' * 64}\r\n".encode()
        both = plain(request).replace(line, wrong + line if wrong_first else line + wrong, 1)
        told[order] = await talk(side.miner.address, both)
    text = ", ".join(f"{order}: {answer.text}" for order, answer in told.items())
    statuses: Mapping[str, int] = {order: answer.status for order, answer in told.items()}
    return row(text, told["false, true"].served, statuses=statuses)


async def zipped(side: Duel) -> Seen:
    """A gzip body, with an honest signature: to be refused, neither unpacked nor fallen over."""
    request = signed(RICH, side.miner.hotkey)
    packed = dataclasses.replace(changed(request, **{"content-encoding": "gzip"}), body=gzip.compress(request.body))
    answer = await talk(side.miner.address, packed)
    return row(answer.text, answer.served or answer.status >= 500, status=answer.status)


async def not_json(side: Duel) -> Seen:
    """A body that is no JSON: the caller's fault, so a 4xx."""
    request = dataclasses.replace(signed(RICH, side.miner.hotkey), body=b"\xff\xfe no json")
    answer = await talk(side.miner.address, request)
    return row(answer.text, answer.served or answer.status >= 500, status=answer.status)


async def http_1_0(side: Duel) -> Seen:
    """An old client is answered once; what it pipelines is not."""
    data = plain(signed(RICH, side.miner.hotkey)).replace(b"HTTP/1.1", b"HTTP/1.0", 1) + _HIDDEN
    answer = await talk(side.miner.address, data, patience_s=5.0, linger_s=1.0)
    count = len(answer.answers)
    end = "closed" if answer.closed else "kept open"
    return row(f"{answer.text}, {count} answer{'s' * (count != 1)}, {end}", count > 1, count=count)


async def binding(side: Duel) -> Seen:
    """Told to bind 127.0.0.1: does it listen on 127.0.0.2 as well?"""
    try:
        _, writer = await asyncio.open_connection("127.0.0.2", side.miner.address[1])
    except OSError:
        return row("only the address it was told", False)
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    return row("listens on other addresses too", True)


_LENGTH = b"content-length: %d" % len(_HIDDEN)
_CHUNKED = b"0\r\n\r\n" + _HIDDEN
ATTACKS = (
    smuggled("smuggling: two lengths", b"content-length: 0", _LENGTH, body=_HIDDEN),
    smuggled("smuggling: length and chunks", b"content-length: 5", b"transfer-encoding: chunked", body=_CHUNKED),
    Attack("two signature headers, in both orders", duplicated),
    Attack("one long header on an honest request", oversized),
    Attack("gzip body", zipped),
    Attack("body that is no JSON", not_json),
    Attack("HTTP/1.0 with a pipelined second request", http_1_0),
    Attack(f"body of {_LARGE / 1e6:.1f} MB", large_body),
    Attack("bound to 127.0.0.1, asked at 127.0.0.2", binding),
)
