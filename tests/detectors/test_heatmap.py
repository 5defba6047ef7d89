"""Heat maps: where the evidence is, no brighter than the answer, over the picture as it came."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pytest

from detectors import camo as camo_module
from detectors import registry
from detectors.camo import Camo, Expert
from detectors.camo_config import CamoConfig
from detectors.card import Preprocess
from detectors.curve import Curve
from detectors.gates import alignment
from detectors.gates.base import Gated
from detectors.heatmap import HeatMap, fitted, heat_map
from detectors.types import U8, Detector, Media
from neurons.demo_media import photographs
from neurons.pipeline import TrivialDetector
from tests.detectors.experts.variants import small_detector
from tests.detectors.fixtures_camo import FakeExpert, build, flat
from tests.detectors.reddish import CARD, centre_of_mass, reddish, spotted, tuned


def checked(found: HeatMap, shape: tuple[int, ...]) -> np.ndarray:
    """The maps, once everything that always holds was seen to hold."""
    assert found.maps.shape == shape
    assert found.maps.dtype == np.float32
    assert np.isfinite(found.maps).all()
    assert found.maps.min() >= 0.0
    assert found.maps.max() == pytest.approx(found.prediction.p_fake, abs=1e-6)
    assert len(found.frames) == len(found.scores) == shape[0]
    assert all(0.0 <= score <= 1.0 for score in found.scores)
    if found.experts:
        assert sum(found.experts.values()) == pytest.approx(1.0)
    return found.maps


def network(experts: Mapping[str, Expert], gates: dict[str, Any] | None = None, **changes: Any) -> Camo:
    """A CAMO of these experts, each with what is said of it under its name."""
    said = {name: {"weights": name} | changes.pop(name.replace("-", "_"), {}) for name in experts}
    raw = {"gates": {name: {} for name in gates or {}}, "experts": said} | changes
    return Camo(CamoConfig.model_validate(raw), experts, gates or {})


def sized(mode: Any, size: int = 64) -> Any:
    return dataclasses.replace(CARD, preprocess=Preprocess(size=size, mode=mode))


@pytest.mark.parametrize("patchy", [True, False])
@pytest.mark.parametrize("at", [(8, 8), (40, 8), (24, 40)])
def test_the_map_lies_on_what_is_fake_and_moves_with_it(patchy: bool, at: tuple[int, int]) -> None:
    found = heat_map(reddish(patchy=patchy), Media(spotted(*at)))
    heat = checked(found, (1, 64, 64))[0]
    assert centre_of_mass(heat) == pytest.approx((at[0] + 8, at[1] + 8), abs=0.1)
    assert heat[at[0] : at[0] + 16, at[1] : at[1] + 16].sum() > 0.6 * heat.sum()  # the rest is interpolation
    assert heat[at[0] + 4 : at[0] + 12, at[1] + 4 : at[1] + 12].min() == pytest.approx(
        found.prediction.p_fake, abs=1e-3
    )
    assert found.experts == {"reddish": 1.0}


@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("mode", ["resize", "centre_square", "centre_crop"])
def test_every_architecture_gives_a_map(name: str, mode: Any) -> None:
    detector = small_detector(name)
    detector._card = dataclasses.replace(
        detector.card, preprocess=dataclasses.replace(detector.card.preprocess, mode=mode)
    )
    pixels = np.random.RandomState(3).randint(0, 256, (120, 150, 3)).astype(np.uint8)
    found = heat_map(detector, Media(pixels))
    checked(found, (1, 120, 150))
    assert found.experts == {detector.card.name: 1.0}
    video = heat_map(detector, Media(np.stack([pixels, 255 - pixels, pixels])), size=(30, 40))
    checked(video, (3, 30, 40))
    assert video.frames == (0, 1, 2)


# Geometry: back where the pixels came from


@pytest.mark.parametrize(
    ("mode", "height", "width", "inside"),
    [
        ("resize", 100, 200, (0, 100, 0, 200)),
        ("centre_square", 100, 201, (0, 100, 50, 150)),
        ("centre_square", 201, 100, (50, 150, 0, 100)),
        ("centre_crop", 100, 200, (18, 82, 68, 132)),
        ("centre_crop", 40, 200, (0, 40, 68, 132)),
        ("native", 80, 120, (0, 80, 0, 120)),
        ("native", 16, 40, (0, 16, 0, 40)),
    ],
)
def test_outside_what_the_network_saw_there_is_nothing(
    mode: str, height: int, width: int, inside: tuple[int, int, int, int]
) -> None:
    red = np.zeros((height, width, 3), np.uint8)
    red[..., 0] = 255
    heat = checked(heat_map(reddish(card=sized(mode)), Media(red)), (1, height, width))[0]
    top, bottom, left, right = inside
    wanted = np.zeros((height, width))
    wanted[top:bottom, left:right] = 1.0
    assert np.allclose(heat, wanted, atol=1e-4)


@pytest.mark.parametrize("mode", ["resize", "centre_square", "centre_crop", "native"])
@pytest.mark.parametrize(("height", "width"), [(96, 160), (160, 96), (128, 128), (40, 70)])
def test_the_map_lies_over_the_picture_however_it_was_shown(mode: str, height: int, width: int) -> None:
    top, left = height // 2 - 4, width // 2 - 20
    pixels = spotted(top, left, height=height, width=width, side=16)
    heat = checked(heat_map(reddish(card=sized(mode)), Media(pixels)), (1, height, width))[0]
    assert centre_of_mass(heat) == pytest.approx((top + 8, left + 8), abs=4.0)  # half a place


def test_the_size_can_be_chosen() -> None:
    media = Media(spotted(32, 64, height=96, width=160, side=32))
    found = heat_map(reddish(), media, size=(48, 80))
    assert centre_of_mass(checked(found, (1, 48, 80))[0]) == pytest.approx((24, 40), abs=1.0)
    assert fitted((4000, 3000), 1024) == (1024, 768)
    assert fitted((30, 40), 1024) == (30, 40)
    assert fitted((8, 16000), 160) == (1, 160)


# Honesty: no brighter than the answer


@pytest.mark.parametrize("intercept", [-6.0, -2.0, 0.0, 4.0])
def test_the_brightest_place_is_p_fake(intercept: float) -> None:
    card = dataclasses.replace(CARD, calibration=Curve(1.0, intercept))
    found = heat_map(reddish(card=card), Media(spotted(16, 16)))
    heat = checked(found, (1, 64, 64))
    assert found.scores == (found.prediction.p_fake,)
    if intercept == -6.0:
        assert heat.max() < 0.01


def test_where_nothing_speaks_for_fake_the_map_is_even() -> None:
    grey = Media(np.full((64, 64, 3), 90, np.uint8))
    found = heat_map(reddish(), grey)
    assert 0.26 < found.prediction.p_fake < 0.28  # sigmoid(-1)
    assert np.all(checked(found, (1, 64, 64)) == np.float32(found.prediction.p_fake))


# Videos


def test_a_videos_frames_share_one_scale() -> None:
    frames = np.stack([spotted(8, 8), spotted(32, 32, side=8), np.full((64, 64, 3), 90, np.uint8)])
    found = heat_map(reddish(), Media(frames))
    heat = checked(found, (3, 64, 64))
    assert found.frames == (0, 1, 2)
    assert found.scores[0] > found.scores[1] > found.scores[2]
    assert found.scores[2] == pytest.approx(1 / (1 + np.e), abs=1e-3)
    assert heat[0].max() >= heat[1].max() > heat[2].max() == 0.0


def test_only_the_frames_that_were_seen_are_explained() -> None:
    frames = np.stack([spotted(8, 8)] * 40)
    assert heat_map(reddish(max_frames=4), Media(frames)).frames == (5, 15, 25, 35)
    camo = network({"reddish": reddish()}, video={"frames": 5})
    assert heat_map(camo, Media(frames), size=(16, 16)).frames == (4, 12, 20, 28, 36)


def test_a_clip_network_in_camo_explains_its_clips() -> None:
    clip = small_detector("tall", max_frames=4)
    camo = network({"reddish": reddish(), "clip": clip}, video={"frames": 2, "clip_frames": 4})
    frames = np.stack([spotted(8, 8)] * 8)
    found = heat_map(camo, Media(frames))
    checked(found, (len(found.frames), 64, 64))
    assert set(found.experts) == {"reddish", "clip"}
    (span,) = clip.spans(Media(frames))
    assert set(found.frames) == {2, 6} | set(span)


# The gating network


def test_maps_are_merged_with_the_weights_of_the_merge() -> None:
    other = dataclasses.replace(CARD, name="other", preprocess=Preprocess(size=64, mode="centre_square"))
    camo = network({"one": reddish(), "other": reddish(card=other)}, one={"weight": 3.0}, other={"weight": 1.0})
    red = np.zeros((64, 128, 3), np.uint8)
    red[..., 0] = 255
    found = heat_map(camo, Media(red))
    assert found.experts == {"one": 0.75, "other": 0.25}
    assert np.allclose(checked(found, (1, 64, 128)), found.prediction.p_fake, atol=1e-5)
    # An expert that says the contrary, in its window alone.
    contrary = tuned(reddish(card=other), -20.0)
    camo = network({"one": reddish(), "other": contrary}, one={"weight": 3.0}, other={"weight": 1.0})
    heat = checked(heat_map(camo, Media(red)), (1, 64, 128))[0]
    # logits: 19 for red, -21 of the contrary one; beside the window one expert speaks alone
    assert heat[32, 64] / heat[32, 4] == pytest.approx((0.75 * 19 - 0.25 * 21) / 19, abs=1e-3)


def test_calibration_moves_what_counts_as_fake() -> None:
    steep = {"calibration": {"slope": 2.0, "intercept": -30.0}}
    camo = network({"one": reddish()}, one=steep)
    half = spotted(0, 0)
    half[32:48, 32:48] = (170, 90, 90)  # redness a third of the other's: logit 5.3, 2 * 5.3 - 30 < 0
    found = heat_map(camo, Media(half))
    heat = checked(found, (1, 64, 64))[0]
    assert heat[8, 8] == pytest.approx(found.prediction.p_fake)
    assert heat[40, 40] == 0.0
    plain = heat_map(network({"one": reddish()}), Media(half)).maps[0]
    assert plain[40, 40] > 0.2 * plain[8, 8]


def test_under_max_only_the_loudest_speaks() -> None:
    quiet = dataclasses.replace(CARD, name="quiet", calibration=Curve(1.0, -3.0))
    camo = network({"one": reddish(), "quiet": reddish(card=quiet)}, merge="max")
    found = heat_map(camo, Media(spotted(16, 40)))
    checked(found, (1, 64, 64))
    assert found.experts == {"one": 1.0}
    assert found.left_out == {"quiet": "it does not count in this answer"}


def test_experts_that_cannot_be_looked_into_are_named() -> None:
    camo = network({"one": reddish(), "fake": FakeExpert("fake")})
    found = heat_map(camo, Media(spotted(16, 40)))
    checked(found, (1, 64, 64))
    assert found.experts == {"one": 1.0}
    assert found.left_out == {"fake": "it is no network that can be looked into"}


class Cutter:
    """Fires always, on the same part of the picture."""

    name = "cutter"

    def __init__(self, **said: Any) -> None:
        self.said = said

    def __call__(self, image: U8) -> Gated | None:
        return Gated(np.ascontiguousarray(self.pixels(image)), 1.0, **self.said)

    def pixels(self, image: U8) -> U8:
        if "matrix" in self.said:
            return np.asarray(cv2.warpAffine(image, self.said["matrix"], (64, 64)), np.uint8)
        left, top, right, bottom = self.said.get("box") or (0, 0, 48, 48)
        return image[top:bottom, left:right]


def behind_a_gate(gate: Cutter) -> Camo:
    cold = reddish(card=dataclasses.replace(CARD, name="cold", calibration=Curve(0.0)))  # says 0.5 everywhere
    experts = {"cold": cold, "shown": reddish()}
    return network(
        experts, {"cutter": gate}, cold={"weight": 0.0}, shown={"content": "cutter", "gate": "cutter", "weight": 1.0}
    )


ROTATED = cv2.getRotationMatrix2D((80.0, 60.0), 30.0, 0.8) + np.array([[0, 0, -40.0], [0, 0, -20.0]])


@pytest.mark.parametrize("said", [{"box": (40, 20, 120, 100)}, {"matrix": ROTATED}])
def test_a_gates_view_is_put_back_where_it_was_cut(said: dict[str, Any]) -> None:
    pixels = spotted(50, 70, height=120, width=160)
    found = heat_map(behind_a_gate(Cutter(**said)), Media(pixels))
    heat = checked(found, (1, 120, 160))[0]
    assert found.experts == {"shown": 1.0}
    assert centre_of_mass(heat) == pytest.approx((58, 78), abs=1.0)
    red = np.zeros_like(pixels)
    red[..., 0] = 255
    seen = heat_map(behind_a_gate(Cutter(**said)), Media(red)).maps[0] > 0
    wanted = np.zeros((120, 160), np.uint8)
    if "box" in said:
        wanted[20:100, 40:120] = 1
    else:
        corners = cv2.transform(np.array([[[0, 0], [64, 0], [64, 64], [0, 64]]], np.float32) - 0.5,
                                cv2.invertAffineTransform(said["matrix"]))  # fmt: skip
        cv2.fillConvexPoly(wanted, np.rint(corners[0]).astype(np.int32), 1)
    assert (seen != wanted.astype(bool)).mean() < 0.02


def test_a_view_that_nobody_can_place_is_left_out() -> None:
    found = heat_map(behind_a_gate(Cutter()), Media(spotted(50, 70, height=120, width=160)))
    assert np.all(checked(found, (1, 120, 160)) == np.float32(found.prediction.p_fake))
    assert found.experts == {}
    assert found.left_out["shown"] == "its gate does not tell where its view lies"


def test_the_face_gate_tells_where_its_crop_lies() -> None:
    points = alignment.template() * 0.25 + (30.0, 20.0)
    image = spotted(40, 50, height=120, width=160)
    matrix = alignment.similarity(points)
    assert np.array_equal(alignment.align(image, points), alignment.warped(image, matrix))
    found = heat_map(behind_a_gate(Cutter(matrix=matrix)), Media(image))
    checked(found, (1, 120, 160))


def test_of_fakes_that_are_no_networks_the_map_is_even() -> None:
    camo, _, _ = build()
    found = heat_map(camo, flat(138, corner=1, frames=3))
    assert np.all(checked(found, (3, 16, 16)) == np.float32(found.prediction.p_fake))
    assert set(found.left_out) == {"general", "second", "face"}
    trivial = heat_map(TrivialDetector((0.4, 0.6, 0.0)), flat(138))
    assert np.all(checked(trivial, (1, 16, 16)) == np.float32(0.6))


# Whose answer


def test_an_answer_that_is_given_is_not_asked_for_again() -> None:
    class Counting(FakeExpert):
        pass

    counting = Counting("general")
    camo = network({"general": counting})
    media = flat(138)
    said = camo.predict([media])[0]
    asked = len(counting.shown)
    assert heat_map(camo, media, prediction=said).prediction is said
    assert len(counting.shown) == asked
    stranger = dataclasses.replace(said, detector="camo@other")
    again = heat_map(camo, media, prediction=stranger).prediction
    assert again.detector == camo.card.key
    assert len(counting.shown) == asked + 1


def test_a_detector_that_is_swapped_is_asked_for_what_it_is_now() -> None:
    class Live(TrivialDetector):
        @property
        def current(self) -> Detector:
            return reddish()

    found = heat_map(Live(), Media(spotted(16, 40)))
    assert found.experts == {"reddish": 1.0}


# What ships


@pytest.fixture(scope="module")
def shipped() -> Camo:
    return camo_module.load(threads=1)


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_the_default_configuration_explains_a_photograph(shipped: Camo, name: str) -> None:
    photo = dict(photographs())[name]
    pixels = cv2.resize(photo, (320, 256), interpolation=cv2.INTER_AREA)
    found = heat_map(shipped, Media(np.asarray(pixels, np.uint8)))
    heat = checked(found, (1, 256, 320))[0]
    assert set(found.experts) == {"general", "general-whole"}
    assert found.left_out == {}
    assert np.ptp(heat) > 0
    assert np.all(heat[:, :32] == 0.0)  # both experts are shown the centre square
    again = heat_map(shipped, Media(np.asarray(pixels, np.uint8)), prediction=found.prediction)
    assert np.allclose(again.maps, found.maps, atol=1e-5)
