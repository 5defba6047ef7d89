"""The auto-encoder: it learns, the same way twice, and comes back from the store as it was saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from detectors import media, registry
from detectors.errors import ConfigError
from detectors.store import Store
from detectors.training import autoencoder
from detectors.training.autoencoder import FACTOR, LATENT, WEIGHTS, AutoEncoder, pixels_of, tensor_of, train_autoencoder
from neurons.demo_media import photographs


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_GATES", {**registry._GATES, WEIGHTS: "detectors.training.autoencoder:AutoEncoder"})
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts of two photographs in two sources, twenty groups each, and fakes that must not be looked at."""
    root = tmp_path_factory.mktemp("pool")
    rng = np.random.default_rng(0)
    photos = dict(photographs())
    for name in ("chelsea", "coffee"):
        for k in range(20):
            y, x = (int(rng.integers(side - 110)) for side in photos[name].shape[:2])
            path = root / "real" / name / f"{name}-{k}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(media.encode_jpeg(np.ascontiguousarray(photos[name][y : y + 110, x : x + 110])))
    fake = root / "synthetic" / "broken" / "not-an-image.jpg"
    fake.parent.mkdir(parents=True)
    fake.write_bytes(b"never decoded")
    return root


def _trained(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch, steps: int = 25) -> list[float]:
    """The losses of a short run."""
    losses: list[float] = []
    objective = autoencoder._objective

    def recorded(*arguments: object) -> object:
        loss_of = objective(*arguments)  # type: ignore[arg-type]

        def noted(step: int) -> torch.Tensor:
            loss = loss_of(step)
            losses.append(float(loss.detach()))
            return loss

        return noted

    with monkeypatch.context() as patch:
        patch.setattr(autoencoder, "_objective", recorded)
        patch.setattr(autoencoder, "_BATCH", 3)
        patch.setattr(autoencoder, "_SIDE", 64)
        train_autoencoder(folder, store, version="0.0.1", steps=steps, seed=3, report=lambda _: None)
    return losses


def test_training_lowers_the_loss_and_is_deterministic(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Store(tmp_path / "a"), Store(tmp_path / "b")
    losses = _trained(folder, first, monkeypatch)
    assert np.mean(losses[-6:]) < 0.75 * np.mean(losses[:6])
    assert _trained(folder, second, monkeypatch) == losses
    cards = [store.card(f"{WEIGHTS}@0.0.1") for store in (first, second)]
    assert cards[0] == cards[1]
    assert set(cards[0].metrics) == {"psnr", "psnr:chelsea", "psnr:coffee"}
    assert cards[0].metrics["psnr"] > 10.0
    assert first.verify() == []


def test_data_without_reals_to_hold_out_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "one.jpg").write_bytes(media.encode_jpeg(np.zeros((40, 40, 3), np.uint8)))
    with pytest.raises(ConfigError, match="several groups"):
        train_autoencoder(tmp_path, Store(tmp_path / "weights"), version="0.0.1", steps=1)


def test_the_latent_is_eight_times_smaller_with_four_channels() -> None:
    network = AutoEncoder(width=8).eval()
    with torch.inference_mode():
        mean, spread = network.encode(torch.zeros(2, 3, 64, 40))
        assert mean.shape == spread.shape == (2, LATENT, 64 // FACTOR, 40 // FACTOR)
        assert network.decode(mean).shape == (2, 3, 64, 40)
        assert network(torch.zeros(2, 3, 64, 40)).shape == (2, 1)


def test_it_is_small_enough_to_ship() -> None:
    network = AutoEncoder()
    assert sum(p.numel() for p in network.parameters()) < 1_500_000
    assert sum(p.numel() for p in network.state_dict().values()) * 4 < 4e6


@pytest.mark.parametrize("shape", [(32, 32), (33, 47), (64, 39)])
def test_pixels_to_tensor_and_back(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    x = tensor_of(image)
    assert x.shape[2] % FACTOR == x.shape[3] % FACTOR == 0
    assert float(x.min()) >= -1.0
    assert float(x.max()) <= 1.0
    assert np.array_equal(pixels_of(x, *shape), image)


def test_crops_have_one_size_whatever_the_picture() -> None:
    rng = np.random.default_rng(0)
    for shape in ((40, 60), (97, 96), (96, 320), (200, 150)):
        image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
        for _ in range(5):
            assert autoencoder._crop(image, rng).shape == (autoencoder._SIDE, autoencoder._SIDE, 3)
