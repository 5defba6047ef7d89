"""The machine and what is installed on it, for :mod:`neurons.doctor`: rows of (what, value)."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from detectors import paths
from neurons.preflight_machine import free_memory

__all__ = ["device", "memory", "packages", "processor", "system", "version"]

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "bittensor",
    "av",
    "pillow",
    "opencv-python-headless",
    "numpy",
    "safetensors",
    "pydantic",
    "uvicorn",
    "httptools",
    "uvloop",
    "prometheus-client",
    "watchfiles",
    "fastapi",
)
_GIT_S = 5.0
_GROUP = Path("/sys/fs/cgroup")

Rows = Iterator[tuple[str, str]]


def version() -> Rows:
    """Of the distribution, and the commit where the code lies in a repository."""
    try:
        yield "deepfake-miner", importlib.metadata.version("deepfake-miner")
    except importlib.metadata.PackageNotFoundError:
        yield "deepfake-miner", "not installed as a distribution"
    yield "code", str(Path(__file__).resolve().parents[1])
    yield "commit", _commit(Path(__file__).resolve().parents[1])
    yield "home", str(paths.home())


def _commit(root: Path) -> str:
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return "not known: no repository, or no git"
    command = [git, "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_S, check=False)  # noqa: S603 - git
    return done.stdout.strip() or f"not known: git ended with {done.returncode}"


def system() -> Rows:
    """Interpreter, kernel, C library."""
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()}) at {sys.executable}"
    yield "system", _os_name()
    yield "kernel", f"{platform.system()} {platform.release()} {platform.machine()}"
    yield "C library", " ".join(platform.libc_ver()).strip() or "not known"
    yield "container", "yes" if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists() else "not seen"


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "not known")
    except OSError:
        return platform.platform()


def processor() -> Rows:
    """Model, cores, how many of them are ours."""
    yield "model", _first("/proc/cpuinfo", "model name") or platform.processor() or "not known"
    yield "cores", str(os.cpu_count())
    if hasattr(os, "sched_getaffinity"):
        yield "of them for us", str(len(os.sched_getaffinity(0)))
    yield "limit of the group", _quota()
    if hasattr(os, "getloadavg"):
        yield "load", " ".join(f"{value:.2f}" for value in os.getloadavg())


def _quota() -> str:
    """Cores' worth of time that the control group gives, of version 2 or 1."""
    try:
        most, period = (_GROUP / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            most = (_GROUP / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (_GROUP / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        except OSError:
            return "none is told"
    return "none" if most in ("max", "-1") else f"{int(most) / int(period):.2f} cores"


def memory() -> Rows:
    """Of the machine, of our control group, and what is free for us."""
    total = _first("/proc/meminfo", "MemTotal")
    yield "total", f"{int(total.split()[0]) / 2**20:.1f} GiB" if total else "not known"
    free = free_memory()
    yield "free for us", "not known" if free is None else f"{free / 2**30:.1f} GiB"
    try:
        most = (_GROUP / "memory.max").read_text(encoding="ascii").strip()
    except OSError:
        most = "none is told"
    yield "limit of the group", f"{int(most) / 2**30:.1f} GiB" if most.isdigit() else most
    swap = _first("/proc/meminfo", "SwapFree")
    yield "swap free", f"{int(swap.split()[0]) / 2**20:.1f} GiB" if swap else "not known"


def _first(file: str, name: str) -> str:
    """The value of the first line ``NAME : VALUE``; empty where there is none."""
    try:
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")


def packages() -> Rows:
    """Versions, without importing any."""
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "not installed"


def device(wanted: str) -> Rows:
    """What torch can compute on, and why not on a GPU where it cannot.

    Args:
        wanted: the device of the settings.
    """
    from detectors.errors import DetectorError  # noqa: PLC0415
    from neurons.preflight_machine import describe_device  # noqa: PLC0415

    driver = _driver()
    yield "NVIDIA driver", driver or "none"
    import torch  # noqa: PLC0415

    yield "torch built for", f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    yield "torch threads", str(torch.get_num_threads())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        about = torch.cuda.get_device_properties(index)
        yield f"cuda:{index}", f"{about.name}, {about.total_memory / 2**30:.0f} GiB, {about.major}.{about.minor}"
    if not count:
        why = str(said[0].message) if said else "no driver" if not driver else "torch sees no device"
        yield "CUDA", f"none: {why if torch.version.cuda else 'torch is built without it'}"
    try:
        yield f"computes on {wanted}", describe_device(wanted)
    except DetectorError as error:
        yield f"computes on {wanted}", f"no: {error}"


def _driver() -> str:
    try:
        lines = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return lines[0] if lines else ""
