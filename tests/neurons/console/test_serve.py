"""The console's own server: its thread, its port, its end."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from neurons.console.serve import serve_console
from tests.neurons.console.kit import bench


def app() -> FastAPI:
    made = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @made.get("/thread")
    async def thread() -> str:
        return threading.current_thread().name

    return made


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "console"]


def test_it_answers_on_a_thread_and_a_loop_of_its_own_and_ends() -> None:
    server = serve_console(app(), "127.0.0.1", 0)
    try:
        assert httpx.get(f"{server.url}thread", trust_env=False, verify=False).json() == "console"
        assert server.url == f"http://127.0.0.1:{server.port}/"
    finally:
        server.close()
    assert threads() == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url, trust_env=False, verify=False)


def test_a_taken_port_is_an_error_of_the_system() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        serve_console(app(), "127.0.0.1", taken.getsockname()[1])
    assert threads() == []


def test_closing_does_not_wait_for_who_keeps_a_connection_open() -> None:
    server = serve_console(app(), "127.0.0.1", 0)
    with (
        socket.create_connection(("127.0.0.1", server.port), 5) as idle,
        socket.create_connection(("127.0.0.1", server.port), 5) as half,
    ):
        idle.sendall(b"GET /thread HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert idle.recv(1000).startswith(b"HTTP/1.1 200")
        half.sendall(b"POST /thread HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n")
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < 2.5
    assert threads() == []


def test_closing_twice_is_fine() -> None:
    server = serve_console(app(), "127.0.0.1", 0)
    server.close()
    server.close()


def test_every_address_of_the_machine_is_shown_as_one_that_can_be_opened() -> None:
    server = serve_console(app(), "0.0.0.0", 0)
    try:
        assert server.url == f"http://127.0.0.1:{server.port}/"
    finally:
        server.close()


def test_after_its_end_no_file_is_analysed_and_no_pixel_is_held(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        assert "thumbnails" in [thread.name for thread in threading.enumerate()]
    made.recent.close()
    assert threads() == []
