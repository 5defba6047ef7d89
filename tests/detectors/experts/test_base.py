from __future__ import annotations

import dataclasses
import math
import time
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from detectors import registry
from detectors.card import Card, Preprocess
from detectors.curve import Curve
from detectors.errors import ConfigError, PredictionError, WeightsError
from detectors.experts.base import Architecture, NeuralDetector, fake_logit
from detectors.types import U8, Media
from tests.detectors.experts.variants import small_card

CARD = Card(name="mean", version="1", architecture="none", preprocess=Preprocess(size=8, mode="native"))


class Mean(Architecture):
    """The mean of the input as its only logit; remembers what it was given."""

    published: ClassVar[Card] = CARD

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []
        self.pause = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        time.sleep(self.pause)
        return x.flatten(1).mean(1, keepdim=True)


def _grey(*values: int) -> U8:
    """Frames of 32 x 32, each of one grey."""
    return np.stack([np.full((32, 32, 3), v, np.uint8) for v in values])


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_fake_logit_of_a_sigmoid_head() -> None:
    assert fake_logit(torch.tensor([[0.3], [-2.0]]), 0).tolist() == pytest.approx([0.3, -2.0])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_fake_logit_of_a_softmax_head(index: int) -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0], [100.0, -100.0, 0.0]], dtype=torch.float64)
    found = torch.sigmoid(fake_logit(logits, index))
    assert torch.allclose(found, torch.softmax(logits, 1)[:, index])


@pytest.mark.parametrize(("shape", "index"), [((2, 1), 1), ((2, 2), 2), ((2, 2), -1), ((2,), 0)])
def test_fake_index_outside_the_head_is_refused(shape: tuple[int, ...], index: int) -> None:
    with pytest.raises(WeightsError, match="fake_index"):
        fake_logit(torch.zeros(shape), index)


def test_calibration_is_platt() -> None:
    card = dataclasses.replace(CARD, calibration=Curve(slope=2.0, intercept=-0.5))
    detector = NeuralDetector(card, Mean())
    assert detector.logits([_grey(255)[0]]) == pytest.approx([1.5])
    assert detector.predict([Media(_grey(51)[0])])[0].p_fake == pytest.approx(_sigmoid(2 * 0.2 - 0.5))


def test_video_is_the_mean_logit_of_evenly_spaced_frames() -> None:
    detector = NeuralDetector(CARD, Mean(), max_frames=3)
    frames = _grey(*range(0, 240, 20))  # of twelve, the middles of three equal parts: 2, 6, 10
    expected = (2 + 6 + 10) / 3 * 20 / 255
    assert detector.predict([Media(frames)])[0].p_fake == pytest.approx(_sigmoid(expected))


def test_short_video_takes_every_frame() -> None:
    network = Mean()
    NeuralDetector(CARD, network).predict([Media(_grey(1, 2, 3))])
    assert network.seen == [(3, 3, 32, 32)]


def test_clip_network_covers_the_video_and_pads_as_told() -> None:
    card, frames = dataclasses.replace(CARD, frames=4), _grey(255, 255, 255, 255, 255, 255)
    network = Mean()
    assert NeuralDetector(card, network).predict([Media(frames)])[0].p_fake == pytest.approx(_sigmoid(1.0))
    assert network.seen == [(2, 4, 3, 32, 32)]
    network.padding = "zero"  # the second clip is half black: (1 + 0.5) / 2
    assert NeuralDetector(card, network).predict([Media(frames)])[0].p_fake == pytest.approx(_sigmoid(0.75))


def test_clip_network_bounded_by_max_frames() -> None:
    network = Mean()
    detector = NeuralDetector(dataclasses.replace(CARD, frames=4), network, max_frames=9)
    detector.predict([Media(_grey(*range(40)))])
    assert network.seen == [(2, 4, 3, 32, 32)]


def test_native_sizes_are_grouped_and_answers_keep_their_order() -> None:
    network = Mean()
    detector = NeuralDetector(CARD, network)
    small, large = np.full((40, 40, 3), 51, np.uint8), np.full((50, 60, 3), 102, np.uint8)
    assert detector.logits([small, large, small]) == pytest.approx([0.2, 0.4, 0.2])
    assert sorted(network.seen) == [(1, 3, 50, 60), (2, 3, 40, 40)]


def test_batches_are_bounded() -> None:
    network = Mean()
    NeuralDetector(CARD, network, batch_size=2).logits(list(_grey(*range(5))))
    assert [shape[0] for shape in network.seen] == [2, 2, 1]


def test_a_passed_deadline_leaves_the_tail_of_videos_out() -> None:
    network = Mean()
    detector = NeuralDetector(CARD, network, batch_size=2)
    answers = detector.predict([Media(_grey(0, 255, 255)), Media(_grey(255)[0])], deadline=time.monotonic() - 1)
    assert [a.partial for a in answers] == [True, False]
    assert [a.p_fake for a in answers] == pytest.approx([0.5, _sigmoid(1.0)])
    assert not any(a.partial for a in detector.predict([Media(_grey(0, 255))], deadline=time.monotonic() + 60))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_output_that_is_not_finite_is_an_error(value: float) -> None:
    card = dataclasses.replace(CARD, preprocess=dataclasses.replace(CARD.preprocess, mean=(value,) * 3))
    with pytest.raises(PredictionError, match="mean@1"):
        NeuralDetector(card, Mean()).logits([_grey(1)[0]])


def test_extreme_logits_stay_probabilities() -> None:
    for intercept, wanted in ((1e6, 1.0), (-1e6, 0.0)):
        card = dataclasses.replace(CARD, calibration=Curve(intercept=intercept))
        assert NeuralDetector(card, Mean()).predict([Media(_grey(255)[0])])[0].p_fake == wanted


def test_training_mode_does_not_leak_into_answers() -> None:
    network = Mean()
    detector = NeuralDetector(CARD, network)
    network.train()
    detector.logits([_grey(1)[0]])
    assert not network.training


@pytest.mark.parametrize(("max_frames", "batch_size"), [(0, 1), (1, 0), (-1, 1)])
def test_options_are_positive(max_frames: int, batch_size: int) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        NeuralDetector(CARD, Mean(), max_frames=max_frames, batch_size=batch_size)


def test_three_class_heads_count_both_fakes() -> None:
    logits = torch.tensor([[0.3, 1.2, -0.4]])
    shares = torch.softmax(logits, 1)[0]
    wanted = torch.log((shares[1] + shares[2]) / shares[0])
    assert torch.allclose(fake_logit(logits, 1, 2)[0], wanted, atol=1e-6)
    with pytest.raises(WeightsError):
        fake_logit(logits[:, :2], 0, 1)
    with pytest.raises(WeightsError):
        fake_logit(logits, 1, 3)


def test_three_class_predictions_give_semi_synthetic_its_share() -> None:
    card = dataclasses.replace(small_card("efficientnet-lite"), options={"variant": "lite0", "num_classes": 3})
    card = dataclasses.replace(card, fake_index=1, semi_index=2)
    torch.manual_seed(2)
    network = registry.build(card)
    with torch.no_grad():
        network.head.weight.zero_()  # type: ignore[union-attr,operator]
        network.head.bias.copy_(torch.tensor([0.0, 0.5, 1.5]))  # type: ignore[union-attr,operator]
    detector = NeuralDetector(card, network)
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    wanted = torch.softmax(torch.tensor([0.0, 0.5, 1.5]), 0).tolist()
    assert detector.predict([Media(image)])[0].probabilities == pytest.approx(wanted, abs=1e-6)
    logits, shares = detector.opinions([image, image])
    assert shares.tolist() == pytest.approx([wanted[2] / (wanted[1] + wanted[2])] * 2, abs=1e-6)
    assert detector.logits([image]) == pytest.approx(logits[:1])
