"""The gates' loops on a pool of photographs: cards are true, weights serve, labels are what they say."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from detectors import datasets, media
from detectors.errors import ConfigError
from detectors.gates.content import CONTENTS, ContentGate
from detectors.gates.face import FaceGate
from detectors.gates.network import GateNet
from detectors.store import Store
from detectors.training import points
from detectors.training.contents import train_contents
from detectors.training.small import descend
from neurons.demo_media import photographs


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest with aligned faces, backgrounds, people and art; every photograph in several groups."""
    root = tmp_path_factory.mktemp("gates")
    photos = dict(photographs())
    face = np.ascontiguousarray(photos["astronaut"][:220, 110:330])
    kinds = {
        "ffhq-128": ("face", face),
        "wall": ("general", photos["brick"]),
        "crowd": ("people", photos["china"]),
        "paintings": ("art", photos["flower"]),
    }
    with (root / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [*datasets.COLUMNS])
        table.writeheader()
        for source, (content, pixels) in kinds.items():
            for k in range(30):
                name = f"{source}-{k}.jpg"
                (root / name).write_bytes(media.encode_jpeg(pixels))
                row = {"path": name, "modality": "image", "label": "real", "content": content, "source": source}
                table.writerow({c: row.get(c, "x") for c in datasets.COLUMNS} | {"group": f"{source}:{k}"})
    return root / "manifest.csv"


def test_the_face_network_trains_and_serves(manifest: Path, tmp_path: Path) -> None:
    store = Store(tmp_path)
    card = points.train_points(manifest, store, version="0.0.1", steps=100, report=lambda _: None)
    assert set(card.metrics) == {
        "faces_confirmed",
        "backgrounds_confirmed",
        "point_error_interocular",
        "gate_fires_faces",
        "gate_fires_backgrounds",
    }
    assert card.metrics["faces_confirmed"] > 0.9
    assert card.metrics["backgrounds_confirmed"] < 0.1
    assert card.metrics["point_error_interocular"] < 0.5
    store.activate("face-points", "0.0.1")
    assert FaceGate.load(store)(dict(photographs())["brick"]) is None


def test_data_without_faces_is_refused(manifest: Path, tmp_path: Path) -> None:
    kept = [line for line in manifest.read_text().splitlines() if "ffhq" not in line]
    other = manifest.parent / "faceless.csv"
    other.write_text("\n".join(kept) + "\n")
    with pytest.raises(ConfigError, match="ffhq-128"):
        points.train_points(other, Store(tmp_path), version="0.0.1", steps=1)


def test_face_boxes_carry_the_points_they_were_cut_with() -> None:
    white = np.full((128, 128, 3), 255, np.uint8)
    for x, y in points.FFHQ_POINTS * 128:
        white[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3] = 0
    hits = []
    for seed in range(20):
        box, found = points._face_box(white, np.random.default_rng(seed), 96)
        grey = box[0].mean(0).numpy()
        for x, y in (found + 1) * 48:
            if 4 <= x < 92 and 4 <= y < 92:
                around = grey[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4]
                hits.append(around.min() < np.median(grey) - 0.15)
    assert len(hits) > 60
    assert np.mean(hits) > 0.9


def test_the_content_network_trains_and_serves(manifest: Path, tmp_path: Path) -> None:
    store = Store(tmp_path)
    card = train_contents(manifest, store, version="0.0.1", steps=40, report=lambda _: None)
    assert card.metrics["balanced_accuracy"] > 0.5
    store.activate("content", "0.0.1")
    gate = ContentGate.load(store, content="art")
    assert set(gate.probabilities(dict(photographs())["coffee"])) == set(CONTENTS)


def test_descend_goes_down() -> None:
    torch.manual_seed(0)
    network = GateNet(outputs=1, side=32, width=4)
    x = torch.randn(8, 3, 32, 32)
    target = torch.arange(8.0)[:, None] / 8
    losses: list[float] = []

    def loss_of(step: int) -> torch.Tensor:
        loss = torch.nn.functional.mse_loss(network(x), target)
        losses.append(float(loss.detach()))
        return loss

    descend(network, loss_of, steps=60, decay=0.0, report=lambda _: None)
    assert losses[-1] < losses[0] / 3
    assert not network.training
