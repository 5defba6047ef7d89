"""What holds for every architecture in the table, from the day it is entered."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from detectors import registry
from detectors.card import Card
from detectors.errors import ConfigError
from detectors.store import Store
from detectors.types import U8, Detector, Media
from tests.detectors.experts.variants import small_card, small_detector, small_network

NAMES = registry.names()


def _images(count: int) -> list[U8]:
    rng = np.random.RandomState(11)
    return [rng.randint(0, 256, (100 + 13 * k, 130 - 7 * k, 3)).astype(np.uint8) for k in range(count)]


def _input(name: str, count: int = 3) -> torch.Tensor:
    card = small_card(name)
    frames = () if card.frames == 1 else (card.frames,)
    shape = (count, *frames, 3, card.preprocess.size, card.preprocess.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_output_is_finite_logits_of_the_head(name: str) -> None:
    with torch.inference_mode():
        logits = small_network(name)(_input(name))
    assert logits.ndim == 2
    assert len(logits) == 3
    assert small_card(name).fake_index < logits.shape[1]
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_input_and_every_inference_parameter(name: str) -> None:
    network, x = small_network(name), _input(name).requires_grad_()
    network(x).square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() > 0
    without = [k for k, p in network.named_parameters() if p.grad is None]
    # the Xception trunk always carries both of its heads; one of them is idle
    assert [k for k in without if "adjust_channel" not in k and "last_linear" not in k] == []


@pytest.mark.parametrize("name", NAMES)
def test_batch_equals_one_by_one_and_repeats(name: str) -> None:
    detector, images = small_detector(name), _images(5)
    batch = detector.logits(images)
    assert np.array_equal(batch, detector.logits(images))
    single = np.concatenate([detector.logits([image]) for image in images])
    assert np.abs(batch - single).max() <= 1e-5 * max(1.0, np.abs(batch).max())
    assert np.ptp(batch) > 0


@pytest.mark.parametrize("name", NAMES)
def test_threads_that_share_a_detector_get_the_same_answers(name: str) -> None:
    detector, images = small_detector(name), _images(4)
    wanted = [detector.logits([image]) for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: detector.logits([image]), images * 3))
    assert all(np.array_equal(f, w) for f, w in zip(found, wanted * 3, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_is_a_detector_of_images_and_videos(name: str) -> None:
    detector = small_detector(name)
    assert isinstance(detector, Detector)
    image, video = Media(_images(1)[0]), Media(np.stack([_images(1)[0]] * 5))
    answers = detector.predict([image, video, image])
    assert answers[0].probabilities == pytest.approx(answers[2].probabilities, abs=1e-6)
    for answer in answers:
        assert answer.experts == {detector.card.name: pytest.approx(answer.p_fake)}
        assert answer.weights == {detector.card.name: detector.card.key}
        assert answer.route == (detector.card.name,)
        assert answer.milliseconds > 0
        assert not answer.partial
    assert detector.predict([]) == []


@pytest.mark.parametrize("name", NAMES)
def test_round_trip_through_the_store(name: str, tmp_path: Path) -> None:
    store, network, image = Store(tmp_path), small_network(name), _images(1)
    store.save(small_card(name), network)
    loaded = store.load(small_card(name).key)
    assert np.array_equal(loaded.logits(image), small_detector(name).logits(image))
    assert store.verify() == []


@pytest.mark.parametrize("name", NAMES)
def test_constructor_options_are_named_and_have_defaults(name: str) -> None:
    for parameter in inspect.signature(registry.architecture(name).__init__).parameters.values():
        assert parameter.name == "self" or parameter.default is not parameter.empty
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)


@pytest.mark.parametrize("preset", registry.published_cards())
def test_published_cards_are_complete_and_survive_json(preset: str) -> None:
    card = registry.published_cards()[preset]
    assert card.name == preset
    assert Card.from_json(card.to_json()) == card
    assert card.architecture in NAMES
    assert card.licence_code
    assert card.licence_weights
    assert card.provenance
    assert card.origin
    with torch.device("meta"):
        registry.build(card)


def test_published_card_is_among_the_presets() -> None:
    for name in NAMES:
        cls = registry.architecture(name)
        assert cls.published in cls.presets.values()
        assert cls.published.architecture == name


@pytest.mark.parametrize(("typed", "meant"), [("xcepton", "xception"), ("UFC", "known are"), ("npr2", "npr")])
def test_unknown_name_proposes_near_ones(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=meant):
        registry.architecture(typed)


def test_unknown_option_is_refused() -> None:
    card = dataclasses.replace(small_card("npr"), options={"num_clases": 1})
    with pytest.raises(ConfigError, match="num_clases"):
        registry.build(card)


@pytest.mark.parametrize(
    ("module", "public"),
    [
        ("registry", "architecture build names published_cards"),
        ("store", "GOLDEN_TOLERANCE Store probe_images"),
        ("importing", "ImportReport KeysRefusedError import_weights read_checkpoint"),
        ("preprocess", "FRONT_ENDS Padding clahe geometry pad_frames tensor window"),
        ("experts.base", "Architecture NeuralDetector fake_logit"),
    ],
)
def test_public_names(module: str, public: str) -> None:
    assert importlib.import_module(f"detectors.{module}").__all__ == public.split()


def test_the_table_imports_nothing_by_itself() -> None:
    code = "import sys, detectors.registry as r; r.names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
