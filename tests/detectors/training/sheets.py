"""Sheets of experts whose quality is known."""

from __future__ import annotations

import numpy as np

from detectors.training.merge_sheet import Sheet


def sheet(count: int = 900, *, seed: int = 0, bias: float = 0.0, quiet: float = 0.5) -> Sheet:
    """Three experts: ``good``, ``noise`` and ``face``, which runs where its gate fires (half of the rows).

    Half of the rows are fake, of two sources each; `bias` moves all logits of `good`, `quiet` scales them.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    truth = np.where(labels == 1, 1.0, -1.0)
    fired = rng.random(count) < 0.5
    good = quiet * (2.0 * truth + rng.normal(0, 1.5, count)) + bias
    noise = rng.normal(0, 2, count)
    face = np.where(fired, 1.5 * truth + rng.normal(0, 1, count), np.nan)
    sources = np.where(labels == 1, np.where(rng.random(count) < 0.7, "flux", "sdxl"), "camera")
    return Sheet(
        names=("good", "noise", "face"),
        gates=("face",),
        logits=np.stack([good, noise, face], axis=1),
        fired=fired[:, None],
        labels=labels.astype(np.int64),
        semi=np.zeros(count, bool),
        sources=sources.astype(str),
        groups=np.array([f"g{k // 3}" for k in range(count)]),
    )
