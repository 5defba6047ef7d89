"""Evidence by place: right on a network that is known, and a guest that leaves no trace."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detectors import registry
from detectors.card import Card
from detectors.errors import PredictionError
from detectors.evidence import evidence
from detectors.experts.base import Architecture, NeuralDetector
from tests.detectors.experts.variants import small_card, small_detector
from tests.detectors.reddish import CARD, Reddish, reddish, spotted, tuned

NAMES = registry.names()


def pictures(count: int, side: int = 100) -> list[np.ndarray]:
    rng = np.random.RandomState(5)
    return [rng.randint(0, 256, (1, side + 7 * k, side + 20, 3)).astype(np.uint8) for k in range(count)]


@pytest.mark.parametrize("patchy", [True, False])
def test_evidence_lies_where_it_was_put(patchy: bool) -> None:
    (found,) = evidence(reddish(patchy=patchy), [spotted(16, 40)[None]])
    heat = found.maps[0]
    assert heat.shape == (8, 8)
    red, grey = heat[2:4, 5:7], np.delete(heat.ravel(), [21, 22, 29, 30])
    assert np.allclose(red, 20.0 - 1.0, atol=0.01)
    assert np.allclose(grey, -1.0, atol=0.01)
    assert found.logit == pytest.approx(20 * 4 / 64 - 1, abs=1e-4)


def test_grad_cam_is_class_activation_mapping_where_both_can_be_had() -> None:
    inputs = [spotted(8, 24)[None], spotted(0, 0, side=30)[None]]
    for one, other in zip(evidence(reddish(), inputs), evidence(reddish(patchy=False), inputs), strict=True):
        assert np.allclose(one.maps, other.maps, atol=1e-5)
        assert one.logit == pytest.approx(other.logit, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_evidence_of_every_architecture_is_its_logit(name: str) -> None:
    detector, shown = small_detector(name), pictures(3)
    found = evidence(detector, shown)
    logits = detector.card.calibration.logits([said.logit for said in found])
    assert np.allclose(logits, detector.logits([picture[0] for picture in shown]), atol=1e-4)
    for said in found:
        assert len(said.maps) == 1
        assert np.isfinite(said.maps).all()
        assert np.ptp(said.maps) > 0
        if detector.card.frames == 1:
            assert said.maps.mean() == pytest.approx(said.logit, abs=1e-5)


def test_a_clip_has_a_map_for_each_of_its_frames() -> None:
    detector = small_detector("tall")
    clip = np.concatenate([picture[:, :100] for picture in pictures(4)])
    full, short = evidence(detector, [clip, clip[:3]])
    assert (full.maps.shape, short.maps.shape) == ((4, 7, 7), (3, 7, 7))
    assert full.maps.mean() == pytest.approx(full.logit, abs=1e-6)
    assert not np.allclose(full.maps[0], full.maps[3])


def test_three_outputs_speak_of_fake_together() -> None:
    card = dataclasses.replace(small_card("npr"), options={"num_classes": 3}, fake_index=1, semi_index=2)
    torch.manual_seed(0)
    detector = NeuralDetector(card, registry.build(card))
    (found,) = evidence(detector, pictures(1))
    assert found.logit == pytest.approx(float(detector.logits([pictures(1)[0][0]])[0]), abs=1e-4)
    assert found.maps.mean() == pytest.approx(found.logit, abs=1e-6)


@pytest.mark.parametrize("name", ["npr", "ucf", "efficientnet-lite"])
def test_nothing_is_left_behind(name: str) -> None:
    detector = small_detector(name)
    before = {key: value.clone() for key, value in detector.network.state_dict().items()}
    evidence(detector, pictures(2))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in detector.network.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in detector.network.modules())
    assert not detector.network.training
    assert all(torch.equal(value, before[key]) for key, value in detector.network.state_dict().items())


def test_a_network_in_training_stays_so_and_its_statistics_stay_too() -> None:
    detector = small_detector("efficientnet-lite")
    wanted = evidence(detector, pictures(1))[0].maps
    detector.network.train()
    before = {key: value.clone() for key, value in detector.network.state_dict().items()}
    assert np.allclose(evidence(detector, pictures(1))[0].maps, wanted)
    assert detector.network.training
    assert all(torch.equal(value, before[key]) for key, value in detector.network.state_dict().items())


@pytest.mark.parametrize("name", ["npr", "ucf"])
def test_others_who_use_the_network_meanwhile_notice_nothing(name: str) -> None:
    detector, shown = small_detector(name), pictures(4)
    wanted = [detector.logits([picture[0]]) for picture in shown]
    maps = [said.maps for said in evidence(detector, shown)]
    with ThreadPoolExecutor(4) as pool:
        explained = [pool.submit(evidence, detector, shown) for _ in range(4)]
        answered = [pool.submit(detector.logits, [picture[0]]) for picture in shown * 6]
        assert all(np.array_equal(a.result(), w) for a, w in zip(answered, wanted * 6, strict=True))
        for future in explained:
            assert all(np.allclose(said.maps, m, atol=1e-5) for said, m in zip(future.result(), maps, strict=True))


class Flat(Architecture):
    """Has no map anywhere."""

    published: ClassVar[Card] = CARD

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Sideways(Reddish):
    """Its last map has no part in the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.aside = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        self.aside(x)
        return logits


def test_a_network_without_places_says_so() -> None:
    with pytest.raises(PredictionError, match="no module of the network has a spatial output"):
        evidence(NeuralDetector(CARD, Flat()), [spotted(0, 0)[None]])


def test_a_map_that_has_no_part_in_the_answer_is_passed_over() -> None:
    (found,) = evidence(NeuralDetector(CARD, Sideways()), [spotted(16, 40)[None]])
    assert found.maps.shape == (1, 8, 8)
    assert found.maps[0, 2, 5] == pytest.approx(19.0, abs=0.01)


def test_what_is_not_finite_is_an_error() -> None:
    with pytest.raises(PredictionError, match="not finite"):
        evidence(tuned(reddish(), float("nan")), [spotted(0, 0)[None]])
