"""Changes a store again and again until it is killed, by the code behind ``deepfake-miner weights activate`` and
``weights import``: so that a kill finds it writing.

``python scripts/chaos_writer.py activate|import STORE CHECKPOINT`` says ``ready`` and begins at the first line of
standard input.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from neurons.commands import weights

NAME, VERSIONS = "general", ("1.0.0", "1.0.1")
PRESET = "npr"


def main() -> None:
    kind, store, checkpoint = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    parent = os.getppid()
    for turn in itertools.count():
        if os.getppid() != parent:  # it was killed as well: nobody will kill us
            return
        if kind == "activate":
            weights.activate(f"{NAME}@{VERSIONS[1 - turn % 2]}", store)
        else:
            weights.import_file(checkpoint, preset=PRESET, version=f"9.{turn}", name=None, options=[], store=store)


if __name__ == "__main__":
    main()
