"""``make attacks``: a slice of it against our miner and the real Axon, and that it finds what is there to find."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from neurons import keys
from scripts import attacks_http, attacks_identity, attacks_load
from scripts.attacks import attacks, compared, main, tried
from scripts.attacks_peers import RICH, WORTHY, Duel, duel
from scripts.attacks_table import Seen, as_data, markdown, not_applicable, row, unexpected
from scripts.attacks_wire import Talk, large_jpeg, resigned, signed, small_jpeg, talk
from scripts.bench_peers import AXON_PYTHON

SLICE = (
    *attacks_identity.ATTACKS,
    *attacks_http.ATTACKS,
    attacks_load.jitter(8, 48),
    attacks_load.memory(300, 20.0),
)
# What the reference says of the Axon and a black box can see, whatever the machine does meanwhile.
AXON_DEFECTS = {
    "body names another caller than the signature",
    "nonce a day old, unsigned `timeout: 1000000000.0`",
    "nonce a day old, unsigned `version: 1`",
    "nonce a year ahead",
    "signing oracle: a stranger's refusal",
    "ping route, any key",
    "unknown route",
    "GET in place of POST",
    "body of 33.6 MB",
    "bound to 127.0.0.1, asked at 127.0.0.2",
    "none: honest, one Dendrite, 0–60 ms jitter, 8 in flight",
    "300 made-up callers, valid signatures, rate limits off: memory",
}


def run(axon_python: Path | None) -> dict[str, Seen]:
    with duel(axon_python, ours=axon_python is None) as sides:
        (side,) = sides
        seen = asyncio.run(tried([side], SLICE, ()))
        assert len(seen) == len(SLICE) + 1
        return {title: cell for title, (cell,) in seen.items()}


def test_our_miner_shows_no_defect() -> None:
    seen = run(None)
    assert {title: cell.text for title, cell in seen.items() if title.startswith("none: an")} == {
        "none: an honest request": "served 200",
        "none: an honest request after all that": "served 200",
    }
    # The one thing that no miner can help, and the one that there was no way to try.
    odd = {title: cell.defect for title, cell in seen.items() if cell.defect != "no"}
    assert odd == {
        "other body, default hash fields (Dendrite wire)": "the wire's",
        "what the oracle signed, at a second miner": "n/a",
    }


@pytest.mark.conformance
def test_the_axon_shows_the_defects_that_the_reference_lists() -> None:
    if not AXON_PYTHON.exists():
        reason = "the real peer is not installed: run make setup-conformance"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    seen = run(AXON_PYTHON)
    assert seen["none: an honest request"].text == "served 200"
    found = {title for title, cell in seen.items() if cell.defect == "yes"}
    assert found >= AXON_DEFECTS
    # Fixed in 10.4.2, and what was never wrong: the attacks do not cry wolf.
    right = ("no signature", "captured request again", "captured request at a second miner", "nonce a day old")
    assert not found & set(right)
    assert seen["other body, wires that sign it"].defect == "n/a"


@dataclass
class Gullible:
    """A miner that answers everything with a prediction, so that each attack on it must be seen to succeed."""

    address: tuple[str, int]
    hotkey: str = keys.from_uri("//Miner").ss58_address
    pid: int = os.getpid()

    def restart(self) -> None:
        """Nothing is remembered in the first place."""

    def stop(self) -> None:
        """Ends with its event loop."""


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes a body where it says one is; never tires of waiting."""
    body = json.dumps({"prediction": 0.5, "message": "Available are ['ImageSynapse']"}).encode()
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
            caller = b"bt_header_dendrite_hotkey: " + RICH.ss58_address.encode()
            writer.write(b"HTTP/1.1 200 OK\r\n%s\r\ncontent-length: %d\r\n\r\n%s" % (caller, len(body), body))
            await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        pass
    finally:
        writer.close()


def against_gullible(body: Callable[[Duel], Awaitable[None]]) -> None:
    async def inner() -> None:
        server = await asyncio.start_server(answer_all, "127.0.0.1", 0, limit=2**26)
        async with server:
            miner = Gullible(server.sockets[0].getsockname())
            await body(Duel("ours", "0", miner, miner))

    asyncio.run(inner())


def test_what_succeeds_is_seen() -> None:
    blind = {
        "none: an honest request",
        "other body, default hash fields (Dendrite wire)",  # served, and the wire's
        "signing oracle: a stranger's refusal",
        "what the oracle signed, at a second miner",
        "bound to 127.0.0.1, asked at 127.0.0.2",  # this one does as it is told
        "none: honest, one Dendrite, 0–60 ms jitter, 8 in flight",
    }
    seen: dict[str, list[Seen]] = {}

    async def body(side: Duel) -> None:
        for attack in (*SLICE, *attacks_http.slow(0.3), *attacks_identity.AT_THE_END):
            seen[attack.title] = [await attack.run(side)]

    against_gullible(body)
    missed = {title for title, (cell,) in seen.items() if cell.defect != "yes"}
    assert missed == blind | {"none: honest requests right after a restart"}
    assert seen["slow headers, a byte a second"][0].text == "held open > 0.3 s"


def test_answers_are_told_apart() -> None:
    data = (
        b"HTTP/1.1 503 X\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 401 Y\r\ntransfer-encoding: chunked\r\n\r\n"
        b"1\r\nx\r\n0\r\n\r\nHTTP/1.0 500 Z\r\n\r\nto the end"
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        for start in range(0, len(data), 7):  # in pieces, none of them complete
            writer.write(data[start : start + 7])
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async def inner() -> Talk:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            return await talk(server.sockets[0].getsockname(), b"x", due=9)

    found = asyncio.run(inner())
    assert [(a.status, a.body) for a in found.answers] == [(503, b"ab"), (401, b"1\r\nx\r\n"), (500, b"to the end")]
    assert found.closed
    assert found.text == "refused 503"
    assert Talk((), False, 3.0).text == "no answer in 3 s"


def test_a_signature_made_anew_holds() -> None:
    request = resigned(signed(RICH, WORTHY.ss58_address), WORTHY, bt_header_dendrite_hotkey=WORTHY.ss58_address)
    fields = ("dendrite_nonce", "dendrite_hotkey", "axon_hotkey", "dendrite_uuid")
    text = ".".join([*(request.headers[f"bt_header_{f}"] for f in fields), request.headers["computed_body_hash"]])
    signature = bytes.fromhex(request.headers["bt_header_dendrite_signature"][2:])
    assert keys.verify(WORTHY.ss58_address, text.encode(), signature)


def test_made_up_callers_are_all_different_and_take_both_routes() -> None:
    made = attacks_load.MadeUp(WORTHY.ss58_address)
    requests = [made.make() for _ in range(20)]
    callers = {line for request in requests for line in request.split(b"\r\n") if b"dendrite_hotkey" in line}
    assert len(callers) == 20
    assert sum(request.startswith(b"POST /Synapse ") for request in requests) == 10


def test_the_table_is_what_was_seen() -> None:
    seen = {
        "one": [row("refused 401", False), row("served 200", True)],
        "two": [Seen("served 200", "the wire's"), not_applicable("no such wire")],
        "flood": [row("fast", False, per_s=400.0, cpu_ms=0.5), row("slow", False, per_s=100.0, cpu_ms=5.0)],
    }
    lines = markdown(list(seen), ["ours 1", "Axon 2"], seen).splitlines()
    assert lines[2] == "| one | refused 401 | no | served 200 | yes |"
    assert lines[3] == "| two | served 200 | the wire's | n/a: no such wire | n/a |"
    assert lines[-1] == "| defects, of what could be tried | 0 of 3 | | 1 of 2 | |"
    names = ["ours", "Axon"]
    assert unexpected(names, seen) == []
    assert unexpected(["Axon", "ours"], seen) == ["one"]
    assert compared(names, seen) == {"refusals_per_s": 4.0, "cpu_a_refusal": 10.0}
    assert as_data(names, seen)[0]["Axon"] == {"text": "served 200", "defect": "yes", "data": {}}


def test_no_two_rows_share_a_title() -> None:
    for quick in (True, False):
        titles = [attack.title for part in attacks(quick=quick) for attack in part]
        assert len(titles) == len(set(titles))


def test_a_missing_second_environment_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make setup"):
        main(["--axon-python", str(tmp_path / "none"), "--out", str(tmp_path / f"{uuid.uuid4()}.json")])


def test_pictures_are_what_they_are_called() -> None:
    assert len(small_jpeg()) < 20_000 < len(large_jpeg()) < 2**20
    assert small_jpeg() != small_jpeg(1)


def test_what_is_not_json_has_no_fields() -> None:
    async def body(side: Duel) -> None:
        answer: Any = (await talk(side.miner.address, signed(RICH, side.miner.hotkey))).answers[0]
        assert (answer.field("prediction"), answer.field("else")) == (0.5, None)

    against_gullible(body)
