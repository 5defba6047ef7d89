"""What a line about a request looks like, on a terminal and off it, and that it stays one line without secrets."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
from collections.abc import Callable

import pytest

from neurons import logs
from neurons.seen import log_seen
from tests.neurons.loopback import Client, against, ask

Reader = Callable[..., str]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, restored_logging: None) -> Callable[[str, bool], io.StringIO]:
    """Configures logging and gives what it writes to."""

    def begin(style: str, terminal: bool) -> io.StringIO:
        stream = Terminal() if terminal else io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        logs.configure("debug", style)  # type: ignore[arg-type]
        return stream

    return begin


@pytest.mark.parametrize(
    ("style", "terminal", "json_lines"),
    [("auto", True, False), ("auto", False, True), ("console", False, False), ("json", True, True)],
)
def test_auto_is_console_on_a_terminal_and_json_elsewhere(
    written: Callable[[str, bool], io.StringIO], style: str, terminal: bool, json_lines: bool
) -> None:
    stream = written(style, terminal)
    logging.getLogger("neurons.x").info("hello")
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("{") == json_lines
    assert "hello" in line


def one_request(wire: str = "dendrite", payload: bytes | None = None) -> None:
    async def body(client: Client) -> None:
        await client.send(ask(wire) if payload is None else ask(wire, payload=payload))

    against(body)


def test_a_request_in_json(written: Callable[[str, bool], io.StringIO]) -> None:
    stream = written("json", False)
    one_request()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (answered,) = [line for line in lines if line["event"] == "answered"]
    assert answered["logger"] == log_seen.__module__
    assert re.fullmatch(r"[0-9a-f]{6}-[0-9a-f]+", answered["request"])
    assert (answered["wire"], answered["tier"], answered["status"], answered["p_fake"]) == (
        "dendrite",
        "offline",
        200,
        0.75,
    )
    assert list(answered["stages"]) == ["body", "verify", "queue", "decode"]
    assert (answered["route"], answered["detector"], answered["weights"]) == ("trivial", "trivial@1.0.0", {})


def test_a_request_on_a_terminal(written: Callable[[str, bool], io.StringIO]) -> None:
    stream = written("console", False)
    one_request()
    (line,) = [line for line in stream.getvalue().splitlines() if " answered " in line]
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} info    neurons\.seen answered request=[0-9a-f]{6}-[0-9a-f]+ wire=", line)
    assert re.search(r" stages=body:[\d.]+,verify:[\d.]+,queue:[\d.]+,decode:[\d.]+ p_fake=0\.75 ", line)
    assert "{" not in line
    assert "\x1b" not in line


def test_colours_stand_for_levels_on_terminals_only(written: Callable[[str, bool], io.StringIO]) -> None:
    stream = written("auto", True)
    logging.getLogger("neurons.x").info("calm")
    logging.getLogger("neurons.x").warning("beware")
    calm, beware = stream.getvalue().splitlines()
    assert "\x1b" not in calm
    assert re.fullmatch(r"\x1b\[33m.* beware\x1b\[0m", beware)


@pytest.mark.parametrize("style", ["console", "json"])
def test_nobody_writes_a_second_line_or_moves_the_cursor(
    written: Callable[[str, bool], io.StringIO], style: str
) -> None:
    stream = written(style, False)
    odd = "one\ntwo\r\x1b[2Jthree"
    logging.getLogger("neurons.x").warning(odd, extra={"field": odd, "inside": {odd: [odd]}})
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()
    assert "three" in stream.getvalue()


def test_fields_on_a_terminal(written: Callable[[str, bool], io.StringIO]) -> None:
    stream = written("console", False)
    fields = {"text": "two words", "none": None, "list": [1, 2], "empty": {}, "blank": "", "deep": {"a": {"b": 1}}}
    logging.getLogger("neurons.x").info("said", extra=fields)
    assert stream.getvalue().endswith("said text='two words' none=None list=1,2 empty=- blank='' deep=a:b:1\n")


def test_a_traceback_follows_its_line_and_is_redacted(written: Callable[[str, bool], io.StringIO]) -> None:
    stream = written("console", False)
    try:
        raise ValueError("wss://customer:key@node.example/key")
    except ValueError:
        logging.getLogger("neurons.x").exception("failed", extra={"request": "1-1"})
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("error   neurons.x failed request=1-1")
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == "ValueError: wss://node.example/***"


def test_a_plain_line_waits_for_its_like_but_never_behind_a_record(
    written: Callable[[str, bool], io.StringIO],
) -> None:
    stream = written("json", False)
    log = logging.getLogger("neurons.x")
    for number in range(3):
        logs.plain(log, logging.INFO, "answered", {"number": number})
    log.warning("after them")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("number", line["event"]) for line in lines] == [0, 1, 2, "after them"]
    assert [set(line) - {"number"} for line in lines] == [{"event", "level", "logger", "timestamp"}] * 4
    assert all(re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{6}Z", line["timestamp"]) for line in lines)


def test_plain_lines_are_written_soon_without_a_record(written: Callable[[str, bool], io.StringIO]) -> None:
    class Told(io.StringIO):
        def write(self, text: str) -> int:
            done = super().write(text)
            told.set()
            return done

    told = threading.Event()
    written("json", False)
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    stream = handler.stream = Told()
    logs.plain(logging.getLogger("neurons.x"), logging.INFO, "answered", {})
    assert told.wait(5)
    assert json.loads(stream.getvalue())["event"] == "answered"


def test_a_stream_that_is_closed_costs_the_lines_and_nothing_else(written: Callable[[str, bool], io.StringIO]) -> None:
    written("json", False).close()
    (handler,) = logging.getLogger().handlers
    logs.plain(logging.getLogger("neurons.x"), logging.INFO, "lost", {})
    handler.flush()
    assert isinstance(handler, logging.StreamHandler)
    stream = handler.stream = io.StringIO()
    logs.plain(logging.getLogger("neurons.x"), logging.INFO, "kept", {})
    handler.flush()
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["kept"]
