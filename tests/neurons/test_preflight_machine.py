"""What the machine can do: real sockets on loopback, real limits, files as the kernel writes them."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from detectors.errors import DetectorError
from neurons import preflight
from neurons import preflight_machine as machine
from neurons.exits import Exit
from neurons.preflight import Status
from neurons.settings import Axon

FAR = ("203.0.113.7", 443)  # a documentation address: nobody has it
LOOPBACK = "127.0.0.1"


def route(monkeypatch: pytest.MonkeyPatch, to: Callable[[tuple[str, int]], tuple[str, int] | None]) -> list[Any]:
    """Sends every connection where `to` says, None refuses; gives the list of what was asked for."""
    real, asked = socket.create_connection, []

    def connect(target: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(target)
        where = to(target)
        if where is None:
            raise ConnectionRefusedError
        return real(where, timeout)

    monkeypatch.setattr(socket, "create_connection", connect)
    return asked


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def somebody_else() -> Iterator[int]:
    """A server that is not us, as behind a router that forwards to another machine; it talks first, and enough."""

    def answer() -> None:
        with contextlib.suppress(OSError):
            taken, _ = server.accept()
            with taken:
                taken.sendall(b"x" * 64)

    with socket.create_server((LOOPBACK, 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        yield int(server.getsockname()[1])
        with socket.create_connection(server.getsockname()):
            thread.join(5)


@pytest.mark.parametrize(
    ("ip", "outside", "through"),
    [
        (LOOPBACK, None, LOOPBACK),
        ("0.0.0.0", None, LOOPBACK),
        ("0.0.0.0", ("127.0.0.9", 0), "127.0.0.9"),
        ("127.0.0.9", ("127.0.0.9", 0), "127.0.0.9"),
        ("0.0.0.0", FAR, LOOPBACK),
    ],
)
def test_a_free_port_is_reached_through_the_external_address_where_that_is_ours(
    ip: str, outside: tuple[str, int] | None, through: str
) -> None:
    reached = machine.reach(ip, 0, outside)
    assert reached.text.endswith(f"is reached through {through}")
    assert reached.missed is None


def test_nothing_leaves_the_machine_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = route(monkeypatch, lambda target: target)
    machine.reach(LOOPBACK, 0, FAR)
    assert [ip for ip, _ in asked] == [LOOPBACK]


def test_asked_thoroughly_the_routers_address_is_tried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    route(monkeypatch, lambda target: (LOOPBACK, port) if target == FAR else target)
    assert machine.reach(LOOPBACK, port, FAR, thorough=True).text.endswith("127.0.0.1 and 203.0.113.7:443")


def test_a_router_that_does_not_turn_round_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    route(monkeypatch, lambda target: None if target == FAR else target)
    axon = Axon(ip=LOOPBACK, port=free_port(), external_ip=FAR[0], external_port=FAR[1])
    finding = preflight.port(axon, publishes=True, thorough=True)
    assert (finding.status, finding.code) == (Status.WARN, Exit.STOPPED)
    assert finding.fix.endswith("nc -vz 203.0.113.7 443")
    assert preflight.port(axon, publishes=False, thorough=True).status is Status.OK


def test_somebody_else_at_our_address_is_not_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PATIENCE_S", 0.2)
    with somebody_else() as other:
        route(monkeypatch, lambda target: (LOOPBACK, other) if target == FAR else target)
        assert machine.reach(LOOPBACK, 0, FAR, thorough=True).missed == FAR
        monkeypatch.undo()


def test_a_stranger_who_knocks_at_that_moment_is_not_taken_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    port, real = free_port(), socket.create_connection
    with contextlib.ExitStack() as stack:

        def knock_first(target: tuple[str, int]) -> tuple[str, int]:
            stack.enter_context(real(target, 2))
            return target

        route(monkeypatch, knock_first)
        assert machine.reach(LOOPBACK, port, None).missed is None


def test_a_port_that_is_taken_is_a_failure_that_names_who_to_ask() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = int(taken.getsockname()[1])
        finding = preflight.port(Axon(ip=LOOPBACK, port=port), publishes=False)
    assert (finding.status, finding.code) == (Status.FAIL, Exit.BIND)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in finding.found
    assert f"sport = :{port}" in finding.fix


def test_a_firewall_of_our_own_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    route(monkeypatch, lambda _: None)
    finding = preflight.port(Axon(ip=LOOPBACK, port=free_port()), publishes=False)
    assert (finding.status, finding.code) == (Status.FAIL, Exit.BIND)
    assert "firewall" in finding.fix


def test_the_port_is_free_again_afterwards() -> None:
    port = free_port()
    for _ in range(3):
        machine.reach(LOOPBACK, port, None)
    with socket.create_server((LOOPBACK, port)):
        pass


@pytest.fixture
def file_limits() -> Iterator[int]:
    """Lowers what this process may open to 512, and puts it back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_of_open_files_is_raised_for_a_start_and_left_alone_by_a_check(file_limits: int) -> None:
    axon = Axon(max_connections=600)
    needed = 600 + machine.OWN_FILES
    assert preflight.open_files(axon, raise_it=False).found.startswith("512 may be open, the start raises it to")
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 512
    assert preflight.open_files(axon, raise_it=True).status is Status.OK
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (needed, file_limits)
    assert preflight.open_files(axon, raise_it=True).found == f"{needed} may be open; {needed} are needed at most"


def test_a_hard_limit_below_the_need_is_a_warning_with_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1000))
    finding = preflight.open_files(Axon(max_connections=1024), raise_it=False)
    assert finding.status is Status.WARN
    assert finding.fix.endswith(f"--axon.max_connections {1000 - machine.OWN_FILES}")


def test_no_limit_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert preflight.open_files(Axon(), raise_it=True).status is Status.OK


def test_free_memory_is_the_machines_or_the_containers(tmp_path: Path) -> None:
    system = tmp_path / "meminfo"
    assert machine.free_memory(system, tmp_path) is None
    system.write_text("MemTotal:  8000 kB\nMemAvailable:   4000 kB\n", encoding="ascii")
    assert machine.free_memory(system, tmp_path) == 4000 * 1024
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    (tmp_path / "memory.current").write_text("1000\n", encoding="ascii")
    assert machine.free_memory(system, tmp_path) == 4000 * 1024
    (tmp_path / "memory.max").write_text("5000\n", encoding="ascii")
    assert machine.free_memory(system, tmp_path) == 4000


@pytest.mark.parametrize(("free", "status"), [(None, Status.SKIPPED), (2**30, Status.WARN), (2**34, Status.OK)])
def test_memory_that_is_short_is_a_warning(free: int | None, status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: free)
    finding = preflight.memory(Axon())
    assert finding.status is status
    assert ("--axon.max_buffered_bytes" in finding.fix) is (status is Status.WARN)


@pytest.mark.parametrize("name", ["cuda:99", "mps"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(DetectorError, match=f"{name} is not there"):
        machine.describe_device(name)
    finding = preflight.device(name)
    assert (finding.status, finding.code, finding.fix) == (Status.FAIL, Exit.USAGE, "--neuron.device cpu")


def test_the_processor_is_always_there() -> None:
    assert preflight.device("cpu").status is Status.OK


@pytest.mark.parametrize(
    ("ip", "public"), [("8.8.8.8", True), ("10.0.0.1", False), ("224.0.0.1", False), ("2606:4700::1", True)]
)
def test_public_addresses(ip: str, public: bool) -> None:
    assert machine.is_public(ip) is public
