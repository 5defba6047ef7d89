"""What the machine can do for a miner: sockets, limits, memory, devices. :mod:`neurons.preflight` judges."""

from __future__ import annotations

import contextlib
import resource
import secrets
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from detectors.errors import DetectorError

__all__ = [
    "OWN_BYTES",
    "OWN_FILES",
    "NotBoundError",
    "NotReachedError",
    "Reached",
    "describe_device",
    "file_limit",
    "free_memory",
    "is_public",
    "reach",
]

OWN_FILES = 128  # of the miner itself: libraries, weights while they load, the chain
OWN_BYTES = 1536 * 2**20  # of the miner itself: torch, the networks that ship, a batch; on a CPU
_PATIENCE_S = 2.0
_TOKEN_BYTES = 16
_STRANGERS = 4


class NotBoundError(Exception):
    """The address cannot be bound."""


class NotReachedError(Exception):
    """What is bound cannot be reached from the machine itself."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A port that works.

    Attributes:
        text: what was tried, in words.
        missed: the external address, where it was tried and did not lead back to us.
    """

    text: str
    missed: tuple[str, int] | None = None


def is_public(ip: str) -> bool:
    """Whether the internet can route to `ip`."""
    address = ip_address(ip)
    return address.is_global and not address.is_multicast


def reach(ip: str, port: int, outside: tuple[str, int] | None, *, thorough: bool = False) -> Reached:
    """Listens for a moment and connects to itself; what answers must know a fresh secret, so it is us.

    Goes through the external address where that is one of this machine's, else through the bound one or loopback.

    Args:
        ip: address to bind.
        port: to bind; 0 takes a free one.
        outside: external address and port, None where there is none; port 0 stands for the bound one.
        thorough: tries the external address also where it is not this machine's. That is the only case in which
            anything leaves the machine.

    Raises:
        NotBoundError: the address is not ours, or taken, or the port needs rights that we lack.
        NotReachedError: a firewall of this machine, most likely.
    """
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        listener = socket.create_server((ip, port), family=family)
    except OSError as error:
        raise NotBoundError(f"cannot listen on {ip}:{port}: {error.strerror or error}") from error
    with listener:
        bound: int = listener.getsockname()[1]
        inside = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(ip, ip)  # noqa: S104 - what stands in for it
        foreign = None
        if outside is not None:
            outside = (outside[0], outside[1] or bound)
            if _is_ours(outside[0]):
                inside, bound = outside
            elif not ip_address(outside[0]).is_unspecified:
                foreign = outside
        if not _leads_back(listener, (inside, bound)):
            raise NotReachedError(f"{ip}:{port} can be bound, but {inside}:{bound} does not lead to it")
        text = f"{ip}:{port} can be bound and is reached through {inside}"
        if foreign is None or not thorough:
            return Reached(text)
        if _leads_back(listener, foreign):
            return Reached(f"{text} and {foreign[0]}:{foreign[1]}")
        return Reached(text, foreign)


def _is_ours(ip: str) -> bool:
    """Whether an interface of this machine has the address: then, and only then, it can be bound."""
    if ip_address(ip).is_unspecified:
        return False
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((ip, 0))
        except OSError:
            return False
    return True


def _leads_back(listener: socket.socket, target: tuple[str, int]) -> bool:
    token = secrets.token_bytes(_TOKEN_BYTES)
    listener.settimeout(_PATIENCE_S)
    with contextlib.ExitStack() as stack:
        try:
            # Both ends in one thread: the system accepts on the listener's behalf.
            caller = stack.enter_context(socket.create_connection(target, timeout=_PATIENCE_S))
            for _ in range(_STRANGERS):  # on a public port others may knock at that moment
                taken = stack.enter_context(listener.accept()[0])
                with contextlib.suppress(OSError):
                    taken.sendall(token)
                caller.settimeout(_PATIENCE_S / _STRANGERS)
                with contextlib.suppress(TimeoutError):
                    return caller.recv(_TOKEN_BYTES, socket.MSG_WAITALL) == token
        except OSError:
            return False
    return False


def file_limit(needed: int, *, raise_it: bool) -> tuple[int, int]:
    """How many files this process may hold open.

    Args:
        needed: how many it should.
        raise_it: sets the soft limit to that, as far as the hard one lets it, for this process and its children.

    Returns:
        (the limit as it was, the limit as it is or would be).
    """
    soft, hard = (_unlimited(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    after = max(soft, min(needed, hard))
    if raise_it and after > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (after, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return soft, after


def _unlimited(limit: int) -> int:
    return 2**31 if limit == resource.RLIM_INFINITY else limit


def free_memory(system: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process can still get without pushing others out; None where the system does not say.

    Args:
        system: what the kernel says of the machine.
        group: the control group's folder, whose limit counts in a container.
    """
    try:
        lines = system.read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    try:
        most = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such group, or no limit ("max")
        return free
    return max(0, min(free, most - used))


def resident_bytes(process: Path = Path("/proc/self")) -> int:
    """Resident memory of this process in bytes; 0 where the system does not tell."""
    try:
        pages = int((process / "statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()


def describe_device(name: str) -> str:
    """What torch says of a device, after it has computed there.

    Args:
        name: cpu, cuda, cuda:N or mps.

    Raises:
        DetectorError: it is not there, or does not compute.
    """
    if name == "cpu":
        return "cpu"
    import torch  # noqa: PLC0415 - seconds that a CPU's check need not pay

    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(name.partition(":")[2] or 0)
        if index >= count:
            raise DetectorError(f"{name} is not there: torch {torch.__version__} sees {count} CUDA devices")
    elif not torch.backends.mps.is_available():
        raise DetectorError(f"{name} is not there: torch {torch.__version__} sees none")
    try:
        total = float(torch.ones(8, device=name).sum())
    except RuntimeError as error:
        raise DetectorError(f"{name} does not compute: {str(error).splitlines()[0]}") from error
    if total != 8.0:
        raise DetectorError(f"{name} does not compute: eight ones make {total}")
    return f"{name}, {torch.cuda.get_device_name(name)}" if name.startswith("cuda") else name
