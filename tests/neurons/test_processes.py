"""Miners as children: they come up, speak, and are always gone afterwards."""

from __future__ import annotations

import os
import time
import urllib.request
from pathlib import Path

import pytest

from neurons.processes import MinerFailed, MinerProcess, miners

TRIVIAL = ("--neuron.detector", "trivial")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_children_serve_and_end_with_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFAKE_MINER_AXON__PORT", "1")  # an operator's environment does not reach the demo
    child = MinerProcess("one", wallets=tmp_path, logs=tmp_path, flags=TRIVIAL)
    try:
        endpoint = child.wait_until_serving(time.monotonic() + 60)
        with urllib.request.urlopen(endpoint.url, timeout=5) as page:
            assert page.status == 200
        assert endpoint.name == "one"
    finally:
        code = child.stop()
    assert code == 0
    assert not alive(child.process.pid)


def test_children_are_reaped_after_an_error_inside(tmp_path: Path) -> None:
    started: list[str] = []

    def fail() -> None:
        with miners({"a": TRIVIAL, "b": TRIVIAL}, wallets=tmp_path, logs=tmp_path) as ready:
            started.extend(e.url for e in ready())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert len(set(started)) == 2
    for url in started:
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(url, timeout=5)


def test_a_child_that_does_not_start_says_why(tmp_path: Path) -> None:
    flags = {"bad": ("--neuron.camo", "no-such-file.yaml")}
    with (
        pytest.raises(MinerFailed, match=r"no-such-file"),
        miners(flags, wallets=tmp_path, logs=tmp_path) as ready,
    ):
        ready()


def test_a_child_that_takes_too_long_is_reaped(tmp_path: Path) -> None:
    with (
        pytest.raises(MinerFailed, match="not ready in time"),
        miners({"late": TRIVIAL}, wallets=tmp_path, logs=tmp_path, start_s=0.01) as ready,
    ):
        ready()
