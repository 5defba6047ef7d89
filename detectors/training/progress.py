"""How far a run is, kept beside its state: one JSON line and the same scalars for TensorBoard at each report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

__all__ = ["Log", "Progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One report.

    Attributes:
        step, steps: steps done (from 1) and in all.
        loss: mean since the last report.
        seconds_left: as the steps since the start or resumption took.
        seconds: spent on the run so far, over all of its resumptions.
        epoch: draws so far by the recipe's draws per epoch.
        scalars: further figures by name, means since the last report.
    """

    step: int
    steps: int
    loss: float
    seconds_left: float
    seconds: float = 0.0
    epoch: float = 0.0
    scalars: Mapping[str, float] = field(default_factory=dict)


class Log:
    """Appends to ``log.jsonl`` and to TensorBoard's event files in the run's folder.

    Args:
        folder: of the run.
        step: where the run goes on; what a killed run reported later is dropped, since it comes again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        path = folder / "log.jsonl"
        kept = _lines_until(path, step) if path.exists() else []
        path.write_text("".join(kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, progress: Progress) -> None:
        values = {"loss": progress.loss, "epoch": progress.epoch, **progress.scalars}
        self._file.write(json.dumps({"step": progress.step, **values, "seconds": round(progress.seconds, 1)}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, progress.step)

    def close(self) -> None:
        self._file.close()
        self._board.close()


def _lines_until(path: Path, step: int) -> list[str]:
    found = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                found.append(line)
        except (ValueError, KeyError, TypeError):
            continue  # a line that a kill cut short
    return found
