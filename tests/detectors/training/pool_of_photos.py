"""A tiny training pool from photographs that come with scikit-image: real crops and fakes made from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detectors import datasets, media
from detectors.training import fakes
from detectors.training.fakes import clips
from neurons.demo_media import photographs
from neurons.mp4 import mp4_of_jpegs


def write_pool(root: Path, *, groups: int = 4) -> datasets.Dataset:
    """``real/`` and ``synthetic/`` below `root`, two sources each, `groups` images a source; 96 px."""
    rng = np.random.default_rng(0)
    photos = dict(photographs())
    for name, photo in (("cat", photos["chelsea"]), ("cup", photos["coffee"])):
        for k in range(groups):
            y, x = (int(rng.integers(side - 96)) for side in photo.shape[:2])
            part = np.ascontiguousarray(photo[y : y + 96, x : x + 96])
            made = fakes.make(part, rng, "upsampled").pixels
            for folder, pixels in (("real", part), ("synthetic", made)):
                path = root / folder / name / f"{name}-{k}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(media.encode_jpeg(pixels, quality=90))
    return datasets.read(root)


def write_videos(root: Path, *, groups: int = 6) -> datasets.Dataset:
    """``real/walk`` and ``synthetic/warp`` below `root`: a window that wanders over a photograph, eight frames each."""
    photo = dict(photographs())["coffee"]
    rng = np.random.default_rng(1)
    for k in range(groups):
        y, x = (int(rng.integers(side - 90)) for side in photo.shape[:2])
        real = np.stack([photo[y + 2 * t : y + 2 * t + 72, x + t : x + t + 72] for t in range(8)])
        fake = clips.make_clip(real, rng, "warped").frames
        for folder, frames in (("real/walk", real), ("synthetic/warp", fake)):
            path = root / folder / f"{k}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(mp4_of_jpegs(b"".join(media.encode_jpeg(f, quality=90) for f in frames)))
    return datasets.read(root)
