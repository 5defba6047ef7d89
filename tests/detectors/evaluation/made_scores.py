"""Scores made by hand, and files small enough to score in a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detectors import datasets, media
from detectors.card import Card
from detectors.errors import PredictionError
from detectors.evaluation.scores import Answer, Recorder, Scores, Seen
from detectors.types import Label, Media, Prediction
from tests.detectors.fixtures_media import movie, photo, video_frames

__all__ = ["Brightness", "noisy", "scores", "write_files"]


def scores(p_fake: Sequence[float | None], labels: Sequence[int], **columns: Sequence[Any]) -> Scores:
    """Rows with these answers (None: no answer; P(fake) all on synthetic); other columns default to one name each."""
    recorder = Recorder(["d"])
    for k, (p, label) in enumerate(zip(p_fake, labels, strict=True)):
        row: Mapping[str, Any] = {name: values[k] for name, values in columns.items()}
        answer = row.get("answer") or Answer(None if p is None else Prediction.split(p))
        recorder.add(
            Seen(
                key=f"{k}#0",
                modality=row.get("modality", "image"),
                label=Label(label),
                content=row.get("content", "general"),
                generator=row.get("generator", "gan" if label else "camera"),
                source=row.get("source", "fakes" if label else "reals"),
                group=row.get("group", f"g{k}"),
                level=row.get("level", 0),
            ),
            {"d": answer},
        )
    return recorder.scores("d")


def noisy(n: int, *, seed: int = 0, apart: float = 1.0, **columns: Sequence[Any]) -> Scores:
    """Half real, half fake; P(fake) = sigmoid of normals `apart` from each other, rounded so that ties occur."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    values = 1 / (1 + np.exp(-(rng.normal(size=n) + apart * (labels - 0.5))))
    return scores(values.round(2).tolist(), labels.tolist(), **columns)


class Brightness:
    """A detector that reads P(fake) off the mean grey level; black frames break it."""

    card = Card(name="brightness", version="1.0.0", architecture="fake")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict(self, batch: Sequence[Media], *, deadline: float | None = None) -> list[Prediction]:
        self.batches.append(len(batch))
        means = [float(item.pixels.mean()) / 255 for item in batch]
        if min(means, default=1.0) < 0.01:
            raise PredictionError("the network's output is not finite")
        return [Prediction(Prediction.split(mean), experts={"mean": mean}) for mean in means]


def write_files(root: Path) -> datasets.Dataset:
    """Two sources of three images a class, one video a class, one broken file and one broken video."""
    for label, shift in (("real", 0), ("synthetic", 10)):
        for source in ("one", "two"):
            for k in range(3):
                path = root / label / source / f"{source}{k}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(media.encode_jpeg(photo(seed=shift + k), quality=90))
        clips = root / label / "clips"
        clips.mkdir(parents=True)
        (clips / "clip.mp4").write_bytes(movie(video_frames(12)))
    (root / "real/one/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (root / "synthetic/clips/broken.mp4").write_bytes(b"\0\0\0\x18ftypisom no video")
    return datasets.read(root)
