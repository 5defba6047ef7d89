"""The port of the metrics: two pages, nothing else, and no way for who reaches it to hold anything up."""

from __future__ import annotations

import http.client
import logging
import socket
import threading
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from neurons.metrics_server import MetricsServer, serve_metrics
from neurons.telemetry import Metrics, Sources
from tests.neurons.loopback import Client, against, ask


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    running = serve_metrics(Metrics(), "127.0.0.1", 0)
    yield running
    running.close()


def get(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def rest(connection: socket.socket) -> bytes:
    """Everything until the server closes; a reset counts as closing."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def test_metrics(server: MetricsServer) -> None:
    status, headers, body = get(server.port)
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert headers["connection"] == "close"
    assert "deepfake_miner_uptime_seconds" in {family.name for family in text_string_to_metric_families(body.decode())}
    assert get(server.port, "/metrics?x=1")[0] == 200


def test_health_follows_the_miner() -> None:
    serving = [True]
    running = serve_metrics(Metrics(Sources(serving=lambda: serving[0])), "127.0.0.1", 0)
    try:
        assert (get(running.port, "/healthz")[0], get(running.port, "/healthz")[2]) == (200, b"ok\n")
        serving[0] = False
        assert get(running.port, "/healthz")[0] == 503
    finally:
        running.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/favicon.ico", 404),
        ("GET", "//metrics", 404),
        ("GET", "/../metrics", 404),
        ("POST", "/metrics", 405),
        ("HEAD", "/healthz", 405),
        ("DELETE", "/", 404),
    ],
)
def test_nothing_else_is_there(server: MetricsServer, method: str, path: str, status: int) -> None:
    found, headers, body = get(server.port, path, method)
    assert found == status
    assert headers.get("allow") == ("GET" if status == 405 else None)
    assert "server" not in headers
    assert len(body) < 20


@pytest.mark.parametrize("sent", [b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\xff\r\n\r\n"])
def test_what_is_no_request(server: MetricsServer, sent: bytes) -> None:
    with connected(server.port) as connection:
        connection.sendall(sent)
        assert rest(connection).startswith(b"HTTP/1.1 404 ")


def test_an_endless_head_is_cut_off(server: MetricsServer) -> None:
    with connected(server.port) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nx: " + b"a" * 40_000)
        assert rest(connection) == b""
    assert get(server.port)[0] == 200


def test_slow_clients_take_neither_places_for_long_nor_threads() -> None:
    """Sixteen that say nothing take every place; they are closed, and nobody else's thread was needed."""
    listener = socket.create_server(("127.0.0.1", 0))
    running = MetricsServer(Metrics(), listener, whole_s=0.3)
    before = threading.active_count()
    idle = [connected(running.port) for _ in range(16)]
    try:
        assert threading.active_count() == before
        assert [rest(connection) for connection in idle] == [b""] * 16
        assert get(running.port)[0] == 200
    finally:
        for connection in idle:
            connection.close()
        running.close()


def test_more_than_there_is_room_for_are_closed_at_once() -> None:
    running = MetricsServer(Metrics(), socket.create_server(("127.0.0.1", 0)), whole_s=60.0)
    idle = [connected(running.port) for _ in range(16)]
    try:
        with connected(running.port) as one_more:
            assert rest(one_more) == b""
        for connection in idle:
            connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert [rest(connection)[-3:] for connection in idle] == [b"ok\n"] * 16
        assert get(running.port)[0] == 200
    finally:
        for connection in idle:
            connection.close()
        running.close()


def test_who_hangs_up_harms_nobody(server: MetricsServer) -> None:
    for sent in (b"", b"GET /met", b"GET /metrics HTTP/1.1\r\n\r\n"):
        with connected(server.port) as connection:
            connection.sendall(sent)
    assert get(server.port)[0] == 200


def test_a_taken_port_is_told_at_once(server: MetricsServer) -> None:
    with pytest.raises(OSError, match="in use"):
        serve_metrics(Metrics(), "127.0.0.1", server.port)


def test_closing_frees_the_port_and_ends_the_thread() -> None:
    running = serve_metrics(Metrics(), "127.0.0.1", 0)
    with connected(running.port):  # somebody is still there
        running.close()
        running.close()
    assert not any(thread.name == "metrics" for thread in threading.enumerate())
    serve_metrics(Metrics(), "127.0.0.1", running.port).close()


def test_a_bug_costs_one_scrape(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def exposition(self) -> tuple[bytes, str]:
            raise RuntimeError("secret of the miner")

        def healthy(self) -> bool:
            return True

    running = serve_metrics(Broken(), "127.0.0.1", 0)
    try:
        with caplog.at_level(logging.ERROR):
            status, _, body = get(running.port)
        assert (status, body) == (500, b"internal error\n")
        assert get(running.port, "/healthz")[0] == 200
    finally:
        running.close()


def test_beside_a_miner_that_serves() -> None:
    """Its loop is not the axon's: while the axon's stands still a scrape is answered."""
    metrics = Metrics()
    running = serve_metrics(metrics, "127.0.0.1", 0)

    async def body(client: Client) -> None:
        assert (await client.send(ask()))[0] == 200
        # Blocking, on purpose, on the loop that serves the axon.
        text = get(running.port)[2].decode()
        assert 'requests_total{outcome="answered",tier="offline",wire="dendrite"} 1.0' in text

    try:
        against(body, observers=(metrics.observe,))
    finally:
        running.close()
