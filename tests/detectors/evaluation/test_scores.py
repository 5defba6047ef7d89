from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detectors.errors import ConfigError
from detectors.evaluation.scores import Answer, Recorder, Seen, digest, dump_line, read_dump
from detectors.types import Label

A = Seen("a.jpg#0", "image", Label.REAL, "face", "camera", "s", "g1", 2)
B = Seen("b.mp4#1", "video", Label.SEMISYNTHETIC, "general", "gan", "t", "g2")
ANSWERS = [
    {"x": Answer((0.1 + 0.2, 0.7 - 1e-17, 0.0), {"one": 1 / 3}), "y": Answer(None)},
    {"x": Answer(None, {"two": 0.25}), "y": Answer((0.0, 0.5, 0.5))},
]


def test_a_dump_says_the_same_as_the_run(tmp_path: Path) -> None:
    recorder = Recorder(["x", "y"])
    for seen, answers in zip((A, B), ANSWERS, strict=True):
        recorder.add(seen, answers)
    path = tmp_path / "dump.jsonl"
    path.write_text("".join(dump_line(s, a) for s, a in zip((A, B), ANSWERS, strict=True)), encoding="utf-8")
    found = read_dump(path)
    assert list(found) == ["x", "y"]
    for name, again in found.items():
        direct = recorder.scores(name)
        for column in ("keys", "groups", "labels", "video", "levels", "probabilities"):
            np.testing.assert_array_equal(getattr(again, column), getattr(direct, column))
        assert again.sources.names == direct.sources.names
        assert {k: v.tolist() for k, v in again.experts.items() if len(v)}.keys() == direct.experts.keys()
    assert found["x"].answered.tolist() == [True, False]
    assert found["x"].probabilities[0, 0] == 0.1 + 0.2
    assert list(read_dump(path, ["y"])) == ["y"]


def test_experts_that_come_late_or_stay_away_are_nan() -> None:
    recorder = Recorder(["x"])
    for answers in ({"one": 0.1}, {"two": 0.2}, {"one": 0.3, "two": 0.4}):
        recorder.add(A, {"x": Answer((1.0, 0.0, 0.0), answers)})
    experts = recorder.scores("x").experts
    np.testing.assert_array_equal(experts["one"], [0.1, np.nan, 0.3])
    np.testing.assert_array_equal(experts["two"], [np.nan, 0.2, 0.4])
    assert len(recorder.scores("x").expert("two")) == 2
    np.testing.assert_allclose(recorder.scores("x").expert("two").p_fake, [0.2, 0.4])


def test_digests_are_stable_across_processes() -> None:
    assert digest("g1") == 4907432730037124645
    assert digest("g1") != digest("g2")


def test_bad_dumps_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "dump.jsonl"
    good = dump_line(A, ANSWERS[0])
    for bad in (
        json.dumps(json.loads(good) | {"label": "unreal"}),
        json.dumps(json.loads(good) | {"answers": {"x": {"p": [0.5, 0.6, 0.0], "experts": {}}}}),
        json.dumps(json.loads(good) | {"answers": {"z": {"p": None, "experts": {}}}}),
        "{}",
    ):
        path.write_text(f"{good}{bad}\n", encoding="utf-8")
        with pytest.raises(ConfigError, match="line 2"):
            read_dump(path)
    for text in ("", "no json\n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError):
            read_dump(path)
    with pytest.raises(ConfigError):
        read_dump(tmp_path / "nowhere")
    path.write_text(good, encoding="utf-8")
    with pytest.raises(ConfigError, match="nobody"):
        read_dump(path, ["nobody"])
