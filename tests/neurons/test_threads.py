from __future__ import annotations

import os
import subprocess
import sys

import pytest

from neurons.threads import sleep_while_waiting


def test_threads_sleep_unless_the_operator_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_a_process_whose_inference_hangs_still_leaves_with_its_code() -> None:
    code = (
        "import threading\n"
        "from neurons.miner import leave\n"
        "from neurons.threads import THREAD\n"
        "threading.Thread(target=threading.Event().wait, name=THREAD).start()\n"  # not even a daemon
        "leave(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 7
