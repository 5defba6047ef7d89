"""The gating network over fakes that can be read off the pixels, and over the weights that ship."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import camo
from detectors.camo import Camo
from detectors.costs import Costs
from detectors.errors import ConfigError, PredictionError
from detectors.merge import leading_share, sigmoid
from detectors.types import Detector, Media, Prediction
from tests.detectors.fixtures_camo import CornerGate, FakeExpert, build, config, flat
from tests.detectors.fixtures_media import photo, video_frames


def one(network: Camo, media: Media, deadline: float | None = None) -> Prediction:
    return network.predict([media], deadline=deadline)[0]


def test_camo_is_a_detector_with_a_card() -> None:
    network, _, _ = build()
    assert isinstance(network, Detector)
    assert network.card.options["experts"]["face"] == "face@1.0.0"
    assert network.card.version == build()[0].card.version
    assert network.card.version != build(config(merge_slope=2.0))[0].card.version
    assert network.predict([]) == []


# Merging


def test_learned_merge_weighs_all_experts_that_ran() -> None:
    network, _, gates = build()
    gates["text"].key = 1  # both gates fire on the same corner
    prediction = one(network, flat(138, corner=1))  # every view stands for logit 1; shifts 0, 1, 2, -1
    expected = sigmoid((2 * 1.0 + 1 * 2.0 + 3 * 3.0 + 1 * 0.0) / 7)
    assert prediction.p_fake == pytest.approx(expected, abs=0.01)
    assert prediction.route == ("gate:face", "gate:text", "general", "second", "face", "text", "merge:learned")
    assert prediction.experts["face"] == pytest.approx(sigmoid(3.0), abs=0.01)
    assert prediction.weights["face"] == "face@1.0.0"
    assert prediction.milliseconds > 0
    assert not prediction.partial


def test_experts_of_silent_gates_are_absent() -> None:
    network, experts, _ = build()
    prediction = one(network, flat(138))
    assert set(prediction.experts) == {"general", "second"}
    assert prediction.p_fake == pytest.approx(sigmoid((2 * 1.0 + 2.0) / 3), abs=0.01)
    assert experts["face"].shown == experts["text"].shown == []
    assert prediction.route == ("general", "second", "merge:learned")


def test_slope_and_intercept_calibrate_the_learned_merge_only() -> None:
    calibrated = config(merge_slope=2.0, merge_intercept=-0.5)
    assert one(build(calibrated)[0], flat(138)).p_fake == pytest.approx(sigmoid(2 * 4 / 3 - 0.5), abs=0.01)
    by_max = config(merge="max", merge_slope=2.0, merge_intercept=-0.5)
    assert one(build(by_max)[0], flat(138)).p_fake == pytest.approx(sigmoid(2.0), abs=0.01)


def test_max_is_the_original_camo() -> None:
    network, experts, gates = build(config(merge="max"))
    nothing = one(network, flat(138))
    assert nothing.route == ("general", "second", "merge:max")
    assert nothing.p_fake == max(nothing.experts.values())
    asked = len(experts["general"].shown)
    face = one(network, flat(138, corner=1))
    assert face.route == ("gate:face", "face", "merge:max")
    assert face.p_fake == face.experts["face"]
    assert len(experts["general"].shown) == asked  # the general expert is not run at all
    gates["text"].key = 1
    both = one(network, flat(138, corner=1))
    assert set(both.experts) == {"face", "text"}
    assert both.p_fake == both.experts["face"] > both.experts["text"]


def test_an_expert_sees_its_gates_view_and_the_others_the_whole() -> None:
    network, _, _ = build()
    pixels = np.full((16, 16, 3), 128, np.uint8)
    pixels[8:] = 228  # the lower half is the gate's view
    pixels[0, 0] = 1
    prediction = one(network, Media(pixels))
    assert prediction.experts["face"] == pytest.approx(sigmoid(12.0))
    assert prediction.experts["general"] < 1 - 1e-3


# Batches and videos


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(60, 200), st.sampled_from([0, 1, 2]), st.sampled_from([0, 1, 5, 30])), max_size=6),
    st.sampled_from(["learned", "max"]),
)
def test_a_batch_is_the_same_as_one_by_one(items: list[tuple[int, int, int]], rule: str) -> None:
    network, _, _ = build(config(merge=rule))
    batch = [flat(grey, corner=corner, frames=frames) for grey, corner, frames in items]
    together = network.predict(batch)
    for media, prediction in zip(batch, together, strict=True):
        alone = one(network, media)
        assert alone.probabilities == prediction.probabilities
        assert (alone.route, alone.experts, alone.weights) == (prediction.route, prediction.experts, prediction.weights)


def test_each_expert_is_asked_once_a_batch() -> None:
    network, experts, _ = build()
    network.predict([flat(120), flat(130, corner=1), flat(140, frames=20), flat(150, corner=1, frames=3)])
    assert experts["general"].shown == [1 + 1 + 8 + 3]
    assert experts["face"].shown == [1 + 3]


def test_videos_average_evenly_spaced_frames() -> None:
    network, experts, _ = build(config(video={"frames": 4}))
    frames = video_frames(40, 16, 16)
    prediction = one(network, Media(frames))
    logits = (frames[[5, 15, 25, 35], 1, 1, 0].astype(float) - 128) / 10
    assert prediction.experts["general"] == pytest.approx(sigmoid(logits.mean()), abs=0.02)
    assert experts["general"].shown == [4]


@pytest.mark.parametrize(("faces", "fires"), [(0, False), (1, False), (2, True), (8, True)])
def test_a_gate_must_fire_on_its_share_of_the_frames(faces: int, fires: bool) -> None:
    network, experts, _ = build(config(video={"frames": 8, "gate_share": 0.25}))
    pixels = flat(138, frames=8).pixels.copy()
    pixels[:faces, 0, 0] = 1
    prediction = one(network, Media(pixels))
    assert ("gate:face" in prediction.route) is fires
    assert experts["face"].shown == ([faces] if fires else [])


def test_gates_may_look_at_fewer_frames() -> None:
    network, _, gates = build(config(video={"frames": 8, "gate_frames": 2}))
    one(network, flat(138, frames=24))
    assert gates["face"].looks == 2


def test_videos_may_have_their_own_weights_and_calibration() -> None:
    experts = {
        "a": {"weights": "a", "weight": 1.0, "video_weight": 0.0},
        "b": {"weights": "b", "weight": 0.0, "video_weight": 1.0},
        "c": {"weights": "c", "media": "image"},
    }
    network, fakes, _ = build(config(experts=experts, gates={}, video={"merge_intercept": 1.0, "merge_slope": 0.5}))
    fakes["a"].shift, fakes["b"].shift = -3.0, 3.0
    assert one(network, flat(128, frames=2)).p_fake == pytest.approx(sigmoid(0.5 * 3.0 + 1.0), abs=0.01)
    assert one(network, flat(128)).p_fake == pytest.approx(sigmoid((-3.0 + 0.0) / 2), abs=0.01)
    assert "c" not in one(network, flat(128, frames=2)).experts


def test_clip_networks_judge_whole_videos_and_no_images() -> None:
    experts = {"image": {"weights": "image"}, "clip": {"weights": "clip"}}
    fakes = {"image": FakeExpert("image"), "clip": FakeExpert("clip", 1.0, clip=4)}
    network = Camo(config(experts=experts, gates={}), fakes, {})
    assert set(one(network, flat(138)).experts) == {"image"}
    video = one(network, flat(138, frames=20))
    assert video.experts["clip"] == pytest.approx(sigmoid(2.0), abs=0.01)
    assert fakes["clip"].shown == [20]
    with pytest.raises(ConfigError, match="clip network"):
        Camo(config(experts={"clip": {"weights": "clip"}}, gates={}), fakes, {})


def test_the_semisynthetic_share_follows_the_content() -> None:
    network, _, _ = build(config(semisynthetic={"general": 0.1, "face": 0.9}))
    plain, face = network.predict([flat(160), flat(160, corner=1)])
    assert plain.probabilities[2] == pytest.approx(0.1 * plain.p_fake)
    assert face.probabilities[2] == pytest.approx(0.9 * face.p_fake)
    assert one(build()[0], flat(160)).probabilities[2] == 0.0


# Deadlines


@pytest.mark.parametrize("frames", [0, 3])
def test_experts_that_tell_outweigh_the_configured_share(frames: int) -> None:
    camo, experts, _ = build(config(semisynthetic={"general": 0.9}))
    experts["general"].tells(0.3)
    experts["second"].tells(0.6)
    answer = camo.predict([flat(128, corner=0, frames=frames)])[0]
    share = answer.probabilities[2] / answer.p_fake
    wanted = (2.0 * 0.3 + 1.0 * 0.6) / 3.0  # by weight in the merge
    assert share == pytest.approx(leading_share(answer.p_fake, wanted))


def test_late_experts_are_left_out_and_named() -> None:
    network, experts, _ = build()
    experts["second"].delay = 0.3
    network.predict([flat(138)])  # learns what it costs
    started = time.monotonic()
    prediction = one(network, flat(138), started + 0.15)
    assert time.monotonic() < started + 0.15
    assert prediction.route == ("general", "late:second", "merge:learned")
    assert prediction.partial
    assert prediction.p_fake == pytest.approx(sigmoid(1.0), abs=0.01)
    assert not one(network, flat(138), time.monotonic() + 10).partial


def test_the_most_weight_a_millisecond_goes_first() -> None:
    parts = {
        "heavy": {"weights": "heavy", "weight": 3.0, "budget_ms": 1000},
        "light": {"weights": "light", "weight": 1.0, "budget_ms": 100},
        "medium": {"weights": "medium", "weight": 2.0, "budget_ms": 300},
    }
    network, _, _ = build(config(experts=parts, gates={}))
    route = one(network, flat(138), time.monotonic() + 0.02 + 0.45).route
    assert route == ("light", "medium", "late:heavy", "merge:learned")


@pytest.mark.parametrize("rule", ["learned", "max"])
@pytest.mark.parametrize("frames", [0, 20])
def test_a_deadline_that_has_passed_still_gets_an_answer(rule: str, frames: int) -> None:
    network, experts, gates = build(config(merge=rule))
    prediction = one(network, flat(138, corner=1, frames=frames), time.monotonic() - 1)
    assert len(prediction.experts) == 1
    assert prediction.partial
    assert "late:gate:face" in prediction.route
    assert gates["face"].looks == 0
    assert sum(experts["general"].shown + experts["second"].shown) == 1  # one frame of one expert
    assert ("frames:1" in prediction.route) is (frames > 0)


def test_a_hurried_video_is_judged_on_the_frames_there_is_time_for() -> None:
    parts = {"only": {"weights": "only", "budget_ms": 100}}
    network, experts, _ = build(config(experts=parts, gates={}))
    prediction = one(network, flat(138, frames=20), time.monotonic() + 0.02 + 0.35)
    assert experts["only"].shown == [3]  # of 8
    assert prediction.route == ("only", "frames:3", "merge:learned")
    assert prediction.partial


def test_what_was_left_out_gets_another_chance() -> None:
    costs = Costs({"a": 10.0}, 0.2)
    assert costs.milliseconds("a", 3) == 30.0
    costs.record("a", 2, 2.0)
    assert costs.milliseconds("a") == pytest.approx(1000.0)
    costs.record("a", 1, 0.5)
    assert costs.milliseconds("a") == pytest.approx(900.0)
    for _ in range(200):
        costs.left_out("a")
    assert costs.milliseconds("a") == pytest.approx(10.0, rel=0.01)
    costs.record("a", 0, 1.0)
    assert costs.snapshot() == {"a": costs.milliseconds("a")}


def test_warm_up_measures_everything() -> None:
    network, experts, gates = build()
    experts["face"].delay = 0.02
    costs = network.warm_up(side=32)
    assert 20 <= costs["face"] < 200
    assert set(costs) == {"general", "second", "face", "text", "gate:face", "gate:text"}
    assert gates["text"].looks == 2
    assert network.faults == {}


# Faults


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("frames", [0, 5])
def test_a_number_that_is_not_finite_never_reaches_the_answer(strict: bool, frames: int) -> None:
    network, experts, _ = build()
    experts["second"].strict = strict
    experts["second"].broken_at = lambda image: int(image[-1, -1, 0]) == 200
    sound, poisoned = network.predict([flat(138, frames=frames), flat(200, frames=frames)])
    assert sound.route == ("general", "second", "merge:learned")
    assert poisoned.route == ("general", "broken:second", "merge:learned")
    assert poisoned.p_fake == pytest.approx(sigmoid(7.2), abs=0.01)
    assert not poisoned.partial
    assert network.faults == {"second": 1}


def test_when_the_chosen_are_broken_the_others_step_in() -> None:
    network, experts, _ = build(config(merge="max"))
    experts["face"].broken_at = lambda image: True
    prediction = one(network, flat(138, corner=1))
    assert "broken:face" in prediction.route
    assert len(prediction.experts) == 1
    assert math.isfinite(prediction.p_fake)


def test_when_all_are_broken_there_is_no_made_up_number() -> None:
    network, experts, _ = build()
    for expert in experts.values():
        expert.broken_at = lambda image: True
    with pytest.raises(PredictionError, match="general"):
        one(network, flat(138))
    with pytest.raises(PredictionError, match="general"):
        one(network, flat(138, frames=9), time.monotonic() - 1)


def test_an_expert_that_answers_for_too_few_is_broken() -> None:
    network, experts, _ = build()
    experts["general"].logits = lambda images: np.zeros(len(images) + 1)  # type: ignore[method-assign]
    assert "broken:general" in one(network, flat(138)).route


# Building


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match="face, second, text"):
        Camo(config(), {"general": FakeExpert("general")}, {"face": CornerGate("face", 1)})


def test_load_names_the_slip(tmp_path: Path) -> None:
    path = tmp_path / "camo.yaml"
    path.write_text("experts: {general: {weights: npr-genral}}", encoding="utf-8")
    with pytest.raises(ConfigError, match="no weights are active"):
        camo.load(path, weights=tmp_path)
    (tmp_path / "active.json").write_text('{"npr-general": "1.0.0"}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"experts\.general\.weights: .*did you mean 'npr-general'"):
        camo.load(path, weights=tmp_path)
    with pytest.raises(ConfigError, match=r"merge: .*did you mean 'learned'"):
        camo.load(path, weights=tmp_path, merge="learnt")
    with pytest.raises(ConfigError, match="threads"):
        camo.load(path, weights=tmp_path, threads=0)
    path.write_text("gates: {fase: }\nexperts: {general: {weights: npr-general}}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"gates\.fase: unknown kind of gate 'fase'; did you mean 'face'"):
        camo.load(path, weights=tmp_path)
    path.write_text("gates: {face: {treshold: 1}}\nexperts: {general: {weights: npr-general}}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"gates\.face: .*did you mean 'threshold'"):
        camo.load(path, weights=tmp_path)


def test_importing_camo_does_not_import_torch() -> None:
    code = "import sys, detectors.camo, detectors.media; sys.exit('torch' in sys.modules or 'av' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(camo.__file__).parents[1], check=False)
    assert done.returncode == 0


def test_threads_do_not_disturb_each_other() -> None:
    network, _, _ = build()
    media = [flat(60 + 5 * i, corner=i % 3) for i in range(16)]
    expected = [prediction.probabilities for prediction in network.predict(media)]
    found: list[list[tuple[float, float, float]]] = []

    def work() -> None:
        found.append([prediction.probabilities for prediction in network.predict(media)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


@pytest.fixture(scope="module")
def shipped() -> Camo:
    return camo.load()


def test_the_shipped_network_answers(shipped: Camo) -> None:
    batch = [Media(photo(120, 160)), Media(video_frames(6, 64, 64)), Media(photo(256, 256, seed=3))]
    together = shipped.predict(batch)
    for media, prediction in zip(batch, together, strict=True):
        alone = one(shipped, media)
        assert alone.p_fake == pytest.approx(prediction.p_fake, abs=1e-4)
        assert alone.route == prediction.route
        assert not prediction.partial
        assert set(prediction.experts) <= set(shipped.config.experts)
    assert shipped.predict(batch[:1])[0].probabilities == shipped.predict(batch[:1])[0].probabilities
