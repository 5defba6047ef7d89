"""Keeps a worker running over all targets, survives its crashes, kills what hangs, and writes down what was found."""

from __future__ import annotations

import base64
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.blackbox import BlackBox
from tests.fuzz.engine import Finding

__all__ = ["Tally", "campaign", "markdown", "save"]

_HANG_S = 25.0  # native code is not interrupted by a signal handler of Python's: the process is killed
_START_S = 180.0
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Tally:
    """What became of one target's inputs.

    Attributes:
        inputs: run to their end.
        accepted: of them, with a result; the others were refused.
        refused: by reason.
        seconds: of wall time.
        findings: by the stem of their files.
    """

    inputs: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slowest_ms: float = 0.0
    peak_mb: float = 0.0
    seconds: float = 0.0
    findings: dict[str, Finding] = field(default_factory=dict)

    def add(self, state: Mapping[str, Any]) -> None:
        """Adds the last state that a worker told."""
        self.inputs += state["inputs"]
        self.accepted += state["accepted"]
        self.refused.update(state["refused"])
        self.slowest_ms = max(self.slowest_ms, state["slowest_ms"])
        self.peak_mb = max(self.peak_mb, state["peak_mb"])
        self.seconds += state["seconds"]
        for raw in state["findings"]:
            found = Finding(**{**raw, "data": base64.b64decode(raw["data"])})
            self.findings.setdefault(found.stem, found)


def campaign(
    shares: Mapping[str, float],
    *,
    seconds: float,
    out: Path,
    seed: int = 0,
    count: int = 10**9,
    table: str = "tests.fuzz.table:all_targets",
    hang_s: float = _HANG_S,
) -> dict[str, Tally]:
    """Feeds each target for its share of the time.

    Args:
        shares: of the time by target's name.
        seconds: for all targets together, without the worker's start (some seconds).
        out: folder for the black box, the log and the findings.
        seed: of everything random; together with `count` instead of the time it repeats a run exactly.
        count: inputs a target gets at most.
        table: ``module:function`` that gives the targets.
        hang_s: after which an input that does not come back is ended with its process.

    Raises:
        RuntimeError: the worker does not start.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "worker.log").write_text("")
    total = sum(shares.values())
    left = {name: seconds * share / total for name, share in shares.items()}
    tallies = {name: Tally() for name in shares}
    while left:
        plan = {
            "table": table,
            "seconds": left,
            "seed": seed,
            "count": count,
            "box": str(out / "last-input.bin"),
            "log": str(out / "worker.log"),
        }
        began = time.monotonic()
        states, end = _session(plan, out / "last-input.bin", hang_s)
        for name, state in states.items():
            tallies[name].add(state)
            left[name] -= state["seconds"]
            if state["done"] or left[name] < 0.2:
                del left[name]
        if end is None:
            break
        if end.target not in tallies:
            raise RuntimeError(f"the worker ended between inputs; see {out / 'worker.log'}")
        tallies[end.target].findings.setdefault(end.stem, end)
        seed += 1  # else the same input would come again
        # What the worker has not told of the last target, its own start included: each crash costs the target time.
        untold = time.monotonic() - began - sum(state["seconds"] for state in states.values())
        if end.target in left:
            left[end.target] -= untold
            if left[end.target] < 0.2:
                del left[end.target]
    return tallies


def _session(plan: dict[str, Any], box_path: Path, hang_s: float) -> tuple[dict[str, dict[str, Any]], Finding | None]:
    """One worker to its end: the last state of each target it came to, and what ended it where that was no good end."""
    box = BlackBox(box_path)
    box.clear()
    lines: queue.Queue[str | None] = queue.Queue()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.worker", json.dumps(plan)],
        cwd=_ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    reader = threading.Thread(target=_read, args=(worker, lines))
    reader.start()
    states: dict[str, dict[str, Any]] = {}
    hung = False
    start = time.monotonic()
    try:
        while True:
            try:
                line = lines.get(timeout=0.5)
            except queue.Empty:
                last = box.last()
                hung = last is not None and time.monotonic() - last.started > hang_s
                if hung or (not states and last is None and time.monotonic() - start > _START_S):
                    worker.kill()
                    break
                continue
            if line is None:
                break
            state = json.loads(line)
            states[state["target"]] = state
        code = worker.wait()
        last = box.last()
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()
        reader.join()
        box.close()
    if code == 0:
        return states, None
    if last is None:
        return states, Finding("", "crash", "", "", b"")
    said = "did not end" if hung else signal.Signals(-code).name if code < 0 else f"exit code {code}"
    detail = f"{said}\n{(box_path.parent / 'worker.log').read_text()[-4000:]}"
    signature = f"{said} {_native_place(detail)}"
    return states, Finding(last.target, "hang" if hung else "crash", signature, detail, last.data)


def _native_place(log: str) -> str:
    """The first line of the house in faulthandler's last trace."""
    trace = log.rpartition("Fatal Python error")[2]
    return next((line.strip() for line in trace.splitlines() if "/neurons/" in line or "/detectors/" in line), "")


def _read(worker: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert worker.stdout is not None
    with worker.stdout as stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def save(tallies: Mapping[str, Tally], out: Path) -> list[Path]:
    """Writes ``report.json``, ``report.md`` and each finding as ``findings/STEM.bin`` and ``.txt``, which it gives."""
    folder = out / "findings"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for tally in tallies.values():
        for stem, found in tally.findings.items():
            (folder / f"{stem}.bin").write_bytes(found.data)
            written.append(folder / f"{stem}.txt")
            written[-1].write_text(found.detail)
    rows = {name: _row(tally) for name, tally in tallies.items()}
    (out / "report.json").write_text(json.dumps(rows, indent=2) + "\n")
    (out / "report.md").write_text(markdown(tallies))
    return written


def _row(tally: Tally) -> dict[str, Any]:
    return {
        "inputs": tally.inputs,
        "accepted": tally.accepted,
        "refused": dict(tally.refused.most_common(5)),
        "slowest_ms": round(tally.slowest_ms, 1),
        "peak_mb": round(tally.peak_mb, 1),
        "seconds": round(tally.seconds, 1),
        "findings": sorted(tally.findings),
    }


def markdown(tallies: Mapping[str, Tally]) -> str:
    """A table, a row a target, with the sum below."""
    lines = [
        "| target | inputs | accepted | refused, top five | slowest ms | peak MB | findings |",
        "|---|---:|---:|---|---:|---:|---:|",
    ]
    for name, tally in tallies.items():
        top = ", ".join(f"{reason.replace('|', '/')} {n}" for reason, n in tally.refused.most_common(5))
        cells = (name, tally.inputs, tally.accepted, top, f"{tally.slowest_ms:.0f}", f"{tally.peak_mb:.0f}")
        lines.append("| " + " | ".join(map(str, (*cells, len(tally.findings)))) + " |")
    inputs, accepted = (sum(getattr(t, key) for t in tallies.values()) for key in ("inputs", "accepted"))
    found = sum(len(t.findings) for t in tallies.values())
    slowest, peak = (max(getattr(t, key) for t in tallies.values()) for key in ("slowest_ms", "peak_mb"))
    lines.append(f"| **all** | {inputs} | {accepted} | | {slowest:.0f} | {peak:.0f} | {found} |")
    return "\n".join(lines) + "\n"
