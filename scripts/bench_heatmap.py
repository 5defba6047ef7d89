"""What a heat map costs beside the answer that it explains: the default CAMO on one picture, both in one run.

``python scripts/bench_heatmap.py`` prints medians in milliseconds.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from detectors import camo
from detectors.heatmap import heat_map
from detectors.types import Media
from neurons.demo_media import photographs


def median_ms(step: Callable[[], object], runs: int) -> float:
    """Of `runs` runs, after one that does not count."""
    taken = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        step()
        taken.append((time.perf_counter() - began) * 1e3)
    return statistics.median(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--side", type=int, default=256, help="of the picture, pixels")
    parser.add_argument("--frames", type=int, default=24, help="of the video")
    options = parser.parse_args()
    detector = camo.load()
    pixels = np.asarray(Image.fromarray(dict(photographs())["astronaut"]).resize((options.side, options.side)))
    for name, media in {"image": Media(pixels), "video": Media(np.stack([pixels] * options.frames))}.items():
        said = detector.predict([media])[0]
        judged = median_ms(functools.partial(detector.predict, [media]), options.runs)
        drawn = median_ms(functools.partial(heat_map, detector, media, prediction=said), options.runs)
        print(f"{name}: predict {judged:.1f} ms, heat map of that answer {drawn:.1f} ms (median of {options.runs})")


if __name__ == "__main__":
    main()
