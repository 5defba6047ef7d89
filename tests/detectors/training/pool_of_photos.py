"""A tiny training pool from photographs that come with scikit-image: real crops and fakes made from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detectors import datasets, media
from detectors.training import fakes
from neurons.demo_media import photographs


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
