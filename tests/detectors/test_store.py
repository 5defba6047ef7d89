from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from detectors.card import Card
from detectors.errors import ConfigError, WeightsError
from detectors.experts.base import Architecture, NeuralDetector
from detectors.store import GOLDEN_TOLERANCE, Store, probe_images
from detectors.types import U8, Media
from tests.detectors.experts.variants import small_card, small_network

IMAGE: list[U8] = [np.random.RandomState(3).randint(0, 256, (90, 110, 3)).astype(np.uint8)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "weights")


def _card(version: str = "1.0.0", name: str = "xception") -> Card:
    return dataclasses.replace(small_card("xception"), name=name, version=version)


def _network(seed: int = 7) -> Architecture:
    network = small_network("xception")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        network.get_parameter("backbone.last_linear.weight").mul_(0.02)  # keeps the scores off 0 and 1
    return network


def test_layout_and_card(store: Store) -> None:
    written = store.save(_card(), _network())
    assert sorted(p.name for p in store.root.iterdir()) == ["xception-1.0.0.json", "xception-1.0.0.safetensors"]
    data = (store.root / "xception-1.0.0.safetensors").read_bytes()
    assert written.sha256 == hashlib.sha256(data).hexdigest()
    assert store.cards() == [written]
    assert dataclasses.replace(written, sha256="", golden={}) == _card()


def test_golden_scores_are_what_the_detector_says(store: Store) -> None:
    written = store.save(_card(), _network())
    found = NeuralDetector(written, _network()).predict([Media(image) for image in probe_images().values()])
    assert list(written.golden.values()) == pytest.approx([f.p_fake for f in found], abs=1e-5)
    assert all(0.01 < score < 0.99 for score in written.golden.values())
    assert store.verify() == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_disk_single_in_memory(store: Store, dtype: torch.dtype) -> None:
    full = store.save(_card(), _network())
    half = store.save(_card("1.0.0-half"), _network(), dtype=dtype)
    sizes = [(store.root / f"{c.stem}.safetensors").stat().st_size for c in (full, half)]
    saved = 2 * sum(p.numel() for p in _network().parameters())
    assert sizes[1] <= sizes[0] - saved
    loaded = store.load(half.key)
    assert {p.dtype for p in loaded.network.parameters()} == {torch.float32}
    assert store.verify() == []
    gap = np.abs(loaded.logits(IMAGE) - store.load(full.key).logits(IMAGE)).item()
    assert 0 < gap < 0.5


def test_other_precisions_are_refused(store: Store) -> None:
    with pytest.raises(WeightsError, match="float64"):
        store.save(_card(), _network(), dtype=torch.float64)


def test_pointer(store: Store) -> None:
    assert store.pointer() == {}
    for version in ("1.0.0", "1.1.0"):
        store.save(_card(version), _network())
    store.save(_card(name="other"), _network())
    with pytest.raises(WeightsError, match="no active weights called 'xception'"):
        store.load("xception")
    store.activate("xception", "1.0.0")
    store.activate("other", "1.0.0")
    store.activate("xception", "1.1.0")
    assert json.loads((store.root / "active.json").read_text()) == {"other": "1.0.0", "xception": "1.1.0"}
    assert store.active("xception").key == "xception@1.1.0"
    assert store.load("xception").card.key == "xception@1.1.0"
    assert store.load("xception@1.0.0").card.key == "xception@1.0.0"


def test_activating_what_is_missing_or_altered_leaves_the_pointer(store: Store) -> None:
    store.save(_card(), _network())
    store.activate("xception", "1.0.0")
    with pytest.raises(WeightsError, match=r"xception-2\.0\.0\.json"):
        store.activate("xception", "2.0.0")
    store.save(_card("3.0.0"), _network())
    _alter(store.root / "xception-3.0.0.safetensors")
    with pytest.raises(WeightsError, match="sha256"):
        store.activate("xception", "3.0.0")
    assert store.pointer() == {"xception": "1.0.0"}


def _alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_altered_weights_are_refused_and_reported(store: Store) -> None:
    written = store.save(_card(), _network())
    _alter(store.root / f"{written.stem}.safetensors")
    with pytest.raises(WeightsError, match=f"card says {written.sha256}"):
        store.load(written.key)
    assert len(store.verify()) == 1


def test_replacing_the_file_does_not_touch_a_loaded_network(store: Store) -> None:
    written = store.save(_card(), _network())
    detector = store.load(written.key)
    before = detector.logits(IMAGE)
    path = store.root / f"{written.stem}.safetensors"
    with path.open("r+b") as file:  # in place: what kills a memory map
        file.truncate(10)
    assert np.array_equal(detector.logits(IMAGE), before)


def test_a_version_never_changes(store: Store) -> None:
    first = store.save(_card(), _network())
    assert store.save(_card(), _network()) == first
    with pytest.raises(WeightsError, match="never changes"):
        store.save(_card(), _network(seed=8))
    assert store.cards() == [first]
    assert store.save(_card(), _network(seed=8), overwrite=True).sha256 != first.sha256
    assert store.verify() == []


def test_a_network_that_does_not_fit_its_card_is_not_written(store: Store) -> None:
    card = dataclasses.replace(_card(), options={**_card().options, "num_classes": 3})
    with pytest.raises(WeightsError, match="last_linear"):
        store.save(card, _network())
    assert not store.root.exists()


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), torch.float32), (1e6, torch.float16)])
def test_values_that_are_not_finite_on_disk_are_refused(store: Store, value: float, dtype: torch.dtype) -> None:
    network = _network()
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = value
    with pytest.raises(WeightsError, match="not finite"):
        store.save(_card(), network, dtype=dtype)
    assert not store.root.exists()


def test_verify_names_each_problem(store: Store) -> None:
    written = store.save(_card(), _network())
    drifted = dataclasses.replace(written, golden={k: v + 3 * GOLDEN_TOLERANCE for k, v in written.golden.items()})
    (store.root / f"{written.stem}.json").write_text(drifted.to_json())
    (store.root / "stray-1.safetensors").write_bytes(b"")
    (store.root / "wrong-1.json").write_text(drifted.to_json())
    (store.root / "broken-1.json").write_text("{")
    (store.root / "active.json").write_text('{"gone": "9"}')
    problems = store.verify()
    wanted = ["broken-1.json", "probe 'noise'", "probe 'smooth'", "belongs in", "without a card", "gone@9"]
    for words in wanted:
        assert sum(words in problem for problem in problems) == 1, words
    assert len(problems) == len(wanted)


@pytest.mark.parametrize("text", ["[", "[1]", '{"a": 1}'])
def test_damaged_pointer(store: Store, text: str) -> None:
    store.save(_card(), _network())
    (store.root / "active.json").write_text(text)
    with pytest.raises(WeightsError, match=r"active\.json"):
        store.active("xception")


@pytest.mark.parametrize(("name", "version"), [("../up", "1"), ("a/b", "1"), ("a", "../1"), ("", "1"), ("a", "")])
def test_names_stay_in_the_folder(store: Store, name: str, version: str) -> None:
    with pytest.raises(WeightsError, match="no name or version"):
        store.save(_card(version, name), _network())
    with pytest.raises(WeightsError, match="no name or version"):
        store.card(f"{name}@{version}")


def test_unknown_device_is_an_error_not_a_fall_back(store: Store) -> None:
    written = store.save(_card(), _network())
    with pytest.raises(RuntimeError):
        store.load(written.key, "cuda:99")


def test_unknown_architecture_on_a_card(store: Store) -> None:
    written = store.save(_card(), _network())
    (store.root / f"{written.stem}.json").write_text(dataclasses.replace(written, architecture="xcep").to_json())
    with pytest.raises(ConfigError, match="xception"):
        store.load(written.key)


def test_a_write_that_fails_leaves_no_trace(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(_card(), _network())
    before = sorted(store.root.iterdir())

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.save(_card("2.0.0"), _network())
    assert sorted(store.root.iterdir()) == before


def test_what_a_killed_writer_left_is_swept_once_it_is_old(store: Store) -> None:
    store.root.mkdir()
    names = [".active.json.a1b2.tmp", ".xception-1.0.0.safetensors.c3d4.tmp", ".mine.tmp"]
    for name in [*names, ".active.json.young.tmp"]:
        (store.root / name).write_bytes(b"{")
    for name in names:
        os.utime(store.root / name, (0, 0))
    assert store.pointer() == {}
    assert store.cards() == []
    store.save(_card(), _network())
    left = sorted(p.name for p in store.root.iterdir() if p.name.startswith("."))
    assert left == [".active.json.young.tmp", ".mine.tmp"]
    assert store.verify() == []


def test_readers_never_see_half_a_pointer(store: Store) -> None:
    for version in ("1", "2"):
        store.save(_card(version), _network())
    store.activate("xception", "1")
    stop, seen = threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            seen.add(store.active("xception").version)

    reader = threading.Thread(target=read)
    reader.start()
    for k in range(40):
        store.activate("xception", str(1 + k % 2))
    stop.set()
    reader.join()
    assert seen <= {"1", "2"}
    assert seen
