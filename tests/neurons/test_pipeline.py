"""The judge: order kept, decoding bounded, one bad item spoils no other."""

from __future__ import annotations

import dataclasses
import io
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from detectors.card import Card
from detectors.errors import DetectorError, MediaError, MediaReason, PredictionError
from detectors.types import Detector, Media, Prediction
from neurons.pipeline import Judge, Judged, TrivialDetector, TrivialJudge
from neurons.wire.base import Challenge
from tests.detectors.reddish import reddish, spotted


def jpeg(grey: int = 128, size: int = 64, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), grey, np.uint8)).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def image(payload: bytes) -> Challenge:
    return Challenge("image", payload, "image", "vector")


class Brightness:
    """P(fake) is the mean grey, so that an answer can be told from its neighbours'. Raises on pure white."""

    card = Card(name="brightness", version="1", architecture="brightness")

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.batches: list[int] = []
        self.deadlines: list[float | None] = []

    def predict(self, batch: Sequence[Media], *, deadline: float | None = None) -> list[Prediction]:
        self.batches.append(len(batch))
        self.deadlines.append(deadline)
        means = [float(media.pixels.mean()) / 255 for media in batch]
        if self.error is not None and any(mean > 0.99 for mean in means):
            raise self.error
        return [Prediction(Prediction.split(mean)) for mean in means]


@pytest.fixture
def detector() -> Brightness:
    return Brightness(RuntimeError("out of memory"))


@pytest.fixture
def judge(detector: Brightness) -> Iterator[Judge]:
    with closing(Judge(detector)) as judge:
        yield judge


def test_an_empty_batch_asks_nobody(judge: Judge, detector: Brightness) -> None:
    assert judge.judge([], None) == []
    assert detector.batches == []


def test_order_is_kept_and_the_batch_stays_one(judge: Judge, detector: Brightness) -> None:
    greys = [10, 200, 90, 160, 30]
    outcomes = judge.judge([image(jpeg(grey)) for grey in greys], time.monotonic() + 5)
    assert [round(o.p_fake * 255) for o in outcomes if isinstance(o, Prediction)] == greys
    assert detector.batches == [5]
    assert detector.deadlines[0] is not None


def test_a_large_batch_is_decoded_in_parallel_to_the_same_answer(judge: Judge) -> None:
    challenges = [image(noise(seed)) for seed in range(6)]
    together = judge.judge(challenges, None)
    alone = [judge.judge([challenge], None)[0] for challenge in challenges]
    assert together == alone
    assert all(isinstance(outcome, Prediction) for outcome in together)


def test_undecodable_items_get_their_own_error_and_never_reach_the_detector(judge: Judge, detector: Brightness) -> None:
    outcomes = judge.judge([image(b""), image(jpeg(10)), image(b"no image"), image(jpeg(200))], None)
    assert [type(outcome) for outcome in outcomes] == [MediaError, Prediction, MediaError, Prediction]
    assert isinstance(outcomes[0], MediaError)
    assert outcomes[0].reason is MediaReason.EMPTY
    assert detector.batches == [2]


def test_frames_and_containers_go_to_their_decoders(judge: Judge) -> None:
    frames = Challenge("video", jpeg(40) + jpeg(60), "jpeg-frames", "float")
    broken = Challenge("video", b"\0\0\0\x18ftypmp42 and no more", "container", "vector")
    good, bad = judge.judge([frames, broken], None)
    assert isinstance(good, Prediction)
    assert round(good.p_fake * 255) == 50
    assert isinstance(bad, MediaError)


def test_only_the_culprit_gets_the_detectors_error(judge: Judge, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        asked = [dataclasses.replace(image(jpeg(grey)), id=f"r-{grey}") for grey in (10, 255, 200)]
        outcomes = judge.judge(asked, None)
    assert [isinstance(outcome, Prediction) for outcome in outcomes] == [True, False, True]
    assert [record.request for record in caplog.records if hasattr(record, "request")] == ["r-255"]
    error = outcomes[1]
    assert type(error) is DetectorError
    assert isinstance(error.__cause__, RuntimeError)
    assert "out of memory" in caplog.text


def test_a_detectors_own_error_is_kept() -> None:
    own = PredictionError("nan")
    with closing(Judge(Brightness(own))) as judge:
        assert judge.judge([image(jpeg(255))], None) == [own]


def test_a_detector_that_answers_too_little_is_an_error_not_a_shift() -> None:
    class Short(Brightness):
        def predict(self, batch: Sequence[Media], *, deadline: float | None = None) -> list[Prediction]:
            return super().predict(batch, deadline=deadline)[: 1 if len(batch) == 1 else -1]

    with closing(Judge(Short())) as judge:
        outcomes = judge.judge([image(jpeg(10)), image(jpeg(200))], None)
    assert [round(o.p_fake * 255) for o in outcomes if isinstance(o, Prediction)] == [10, 200]


def masked(outcome: object) -> Prediction:
    assert isinstance(outcome, Prediction)
    assert outcome.heat_map is not None
    assert outcome.heat_map.dtype == np.float32
    return outcome


def wanting(payload: bytes) -> Challenge:
    return dataclasses.replace(image(payload), wants="mask")


def spot(height: int, width: int) -> bytes:
    """A red square in the upper left quarter, without JPEG's mosaic."""
    stream = io.BytesIO()
    pixels = spotted(height // 8, width // 8, height=height, width=width, side=min(height, width) // 4)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_who_wants_a_mask_gets_one_of_the_pictures_size_and_nobody_else() -> None:
    with closing(Judge(reddish())) as judge:
        plain, one, large = judge.judge([image(spot(64, 96)), wanting(spot(64, 96)), wanting(spot(1500, 1200))], None)
    assert isinstance(plain, Prediction)
    assert plain.heat_map is None
    found = masked(one)
    assert found.heat_map is not None
    assert found.heat_map.shape == (64, 96)
    assert found.heat_map.max() == pytest.approx(found.p_fake, abs=1e-6)
    assert found.heat_map[:32, :48].sum() > 0.9 * found.heat_map.sum()
    assert found.stages["mask"] > 0
    assert found.route == ("reddish",)
    heat = masked(large).heat_map
    assert heat is not None
    assert heat.shape == (1024, 819)


def test_watchers_are_shown_what_leaves() -> None:
    shown: list[Judged] = []
    with closing(Judge(reddish(), watchers=[shown.extend])) as judge:
        (outcome,) = judge.judge([wanting(spot(64, 96))], None)
    assert [prediction for _, _, prediction in shown] == [outcome]


def test_a_mask_that_would_be_late_is_even_and_the_route_says_so() -> None:
    with closing(Judge(reddish())) as judge:
        (hurried,) = judge.judge([wanting(spot(64, 96))], time.monotonic() + 0.1)
        (patient,) = judge.judge([wanting(spot(64, 96))], time.monotonic() + 60)
    late = masked(hurried)
    assert late.route == ("reddish", "late:mask")
    assert np.all(late.heat_map == np.float32(late.p_fake))
    assert masked(patient).route == ("reddish",)
    assert late.p_fake == pytest.approx(masked(patient).p_fake)


def test_a_mask_that_fails_is_even_and_costs_nobody_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(TrivialDetector):
        @property
        def current(self) -> Detector:
            raise RuntimeError("no")

    with closing(Judge(Stubborn((0.25, 0.75, 0.0)))) as judge:
        found = masked(judge.judge([wanting(spot(64, 96))], None)[0])
    assert found.route == ("trivial", "broken:mask")
    assert np.all(found.heat_map == np.float32(0.75))
    assert "no heat map" in caplog.text


def test_what_cannot_be_decoded_gets_its_error_whatever_it_wants(judge: Judge) -> None:
    (outcome,) = judge.judge([wanting(b"no image")], None)
    assert isinstance(outcome, MediaError)


def test_the_trivial_stand_ins() -> None:
    detector = TrivialDetector((0.2, 0.3, 0.5))
    assert isinstance(detector, Detector)
    assert detector.card.key == "trivial@1.0.0"
    assert TrivialJudge((0.2, 0.3, 0.5)).judge([image(b"never decoded")] * 3, None) == [detector._answer] * 3
