"""Starts what the conformance tests talk to: our server in one process, the real Dendrite in another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conformance.serve import Miner

ROOT = Path(__file__).resolve().parents[2]
PEER_PYTHON = ROOT / ".venv-conformance" / "bin" / "python"


@pytest.fixture(scope="session")
def peer_python() -> Path:
    """The interpreter of the second environment; a missing one is a skip here and a failure in CI."""
    if not PEER_PYTHON.exists():
        reason = "the real peer is not installed: run make setup-conformance"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return PEER_PYTHON


@pytest.fixture(scope="session", params=["calm", "storm"])
def miners(request: pytest.FixtureRequest) -> Iterator[list[Miner]]:
    """Three miners in a real server process; in a storm their weights are swapped all the time."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.serve", request.param],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "the server did not start"
        yield [Miner(*entry) for entry in json.loads(line)]
        process.stdin.close()
        if request.param == "storm":
            swaps, refused, answered = json.loads(process.stdout.readline())
            assert swaps >= 4
            assert refused == 0
            assert answered >= 2  # what was asked met different weights
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    """One 64 x 64 image."""
    return encoded(64)


@pytest.fixture(scope="session")
def heavy_jpeg() -> bytes:
    """One frame of noise, so large that a hundred of them exceed 10 MiB and zlib finds nothing to save."""
    return encoded(256)


def encoded(side: int) -> bytes:
    noise = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
