"""What an operator may write, and what the answer to a slip is."""

from __future__ import annotations

from pathlib import Path

import pytest

from detectors import paths
from detectors.camo_config import CamoConfig, load_config
from detectors.curve import Curve
from detectors.errors import ConfigError
from neurons.drift import BINS

GOOD = """
gates: {face: }
experts:
  general: {weights: npr-general}
  face: {weights: npr-face@1.0.0, content: face, gate: face}
"""


def load(tmp_path: Path, text: str) -> CamoConfig:
    path = tmp_path / "camo.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_the_shipped_file_is_right() -> None:
    shipped = load_config(paths.configs() / "camo.yaml")
    assert shipped.merge == "learned"
    assert any(not part.needs for part in shipped.experts.values())
    assert "face" in shipped.gates


def test_defaults(tmp_path: Path) -> None:
    read = load(tmp_path, GOOD)
    assert read.gates == {"face": {}}
    assert (read.merge, read.merge_slope, read.merge_intercept) == ("learned", 1.0, 0.0)
    assert read.experts["general"].needs == frozenset()
    assert read.experts["face"].needs == {"face"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("weights: npr-general", "weigths: npr-general"), "experts.general.weigths: unknown key.*'weights'"),
        (("experts:", "merg: max\nexperts:"), "merg: unknown key.*'merge'"),
        (("experts:", "merge: mx\nexperts:"), "merge: .*'learned' or 'max'"),
        (("experts:", "video: {frame: 3}\nexperts:"), "video.frame: unknown key.*'frames'"),
        (("experts:", "video: {frames: 0}\nexperts:"), "video.frames"),
        (("experts:", "deadline: {margin: 3}\nexperts:"), "deadline.margin: unknown key.*'margin_ms'"),
        (("experts:", "semisynthetic: {fase: 0.1}\nexperts:"), "semisynthetic: unknown content 'fase'.*'face'"),
        (("experts:", "semisynthetic: {face: 1.5}\nexperts:"), "semisynthetic.face"),
        (("experts:", "merge_slope: .nan\nexperts:"), "merge_slope"),
        (("experts:", "merge_slope: -1\nexperts:"), "merge_slope"),
        (("experts:", "merge_spread: -1\nexperts:"), "merge_spread"),
        (("experts:", "merge_calibration: {slop: 2}\nexperts:"), "merge_calibration.slop: unknown key.*'slope'"),
        (("experts:", "merge_calibration: {method: isotonic}\nexperts:"), "merge_calibration: .*needs knots"),
        (("experts:", "merge_calibration: {knots: [[0, 0.5]]}\nexperts:"), "merge_calibration: .*no other method"),
        (
            ("experts:", "merge_calibration: {method: isotonic, knots: [[0, 0.5], [1, 0.4]]}\nexperts:"),
            "merge_calibration: .*never fall",
        ),
        (("experts:", "merge_slope: 2\nmerge_calibration: {slope: 2}\nexperts:"), "say one of the two"),
        (("experts:", "video: {merge_intercept: 0, merge_calibration: {}}\nexperts:"), "video: .*one of the two"),
        (("experts:", "gate_calibration: {fase: {}}\nexperts:"), "gate_calibration: unknown gate 'fase'.*'face'"),
        (("experts:", "video: {gate_calibration: {fase: {}}}\nexperts:"), "video.gate_calibration: unknown gate"),
        (
            ("{weights: npr-general}", "{weights: npr-general, video_calibration: {mthod: platt}}"),
            "experts.general.video_calibration.mthod: unknown key.*'method'",
        ),
        (("experts:", "reference: {image: [0.5, 0.5]}\nexperts:"), "reference.image: must be 10 shares"),
        (("experts:", f"reference: {{video: {[0.2] * 10}}}\nexperts:"), "reference.video: .*sum to 2.0000"),
        (("experts:", f"reference: {{image: {[-0.1, 0.3] * 5}}}\nexperts:"), "reference.image.0"),
        (("experts:", "reference: {image: [.nan, 1, 0, 0, 0, 0, 0, 0, 0, 0]}\nexperts:"), "reference.image.0"),
        (("experts:", f"reference: {{audio: {[0.1] * 10}}}\nexperts:"), "reference.audio"),
        (("gate: face", "gate: fase"), "experts.face.gate: unknown gate 'fase'; did you mean 'face'"),
        (("content: face", "content: animals"), "experts.face.content: unknown content 'animals'; known are face"),
        (("{weights: npr-general}", "{weights: npr-general, gate: face}"), "none judges every image"),
        (("{weights: npr-general}", "{weights: npr-general, media: image}"), "none judges every video"),
        (("  face: {weights", "  general: {weights"), "there twice"),
        (("experts:", "experts: ["), "not YAML"),
    ],
)
def test_every_slip_is_named(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=rf"camo\.yaml: .*{words}"):
        load(tmp_path, GOOD.replace(*change))


def test_which_curve_calibrates_what(tmp_path: Path) -> None:
    said = """
merge_calibration: {method: isotonic, knots: [[-1, 0.2], [1, 0.8]], intercept: 0.1}
merge_spread: 0.4
gate_calibration: {face: {slope: 2}}
video: {merge_slope: 3, merge_spread: 0}
"""
    read = load(tmp_path, GOOD + said)
    assert read.curve("image") == Curve(1.0, 0.1, ((-1.0, 0.2), (1.0, 0.8)))
    assert read.curve("image", ("text", "face")) == Curve(2.0)
    assert read.curve("video", ("face",)) == read.curve("video") == Curve(3.0, 0.0)
    assert (read.spread("image"), read.spread("video")) == (0.4, 0.0)
    plain = load(tmp_path, GOOD + "merge_slope: 2\nmerge_intercept: -1\nvideo: {merge_intercept: 0.5}\n")
    assert (plain.curve("image"), plain.curve("video")) == (Curve(2.0, -1.0), Curve(2.0, 0.5))
    assert load(tmp_path, GOOD + said.replace("merge_slope: 3, ", "")).curve("video") == read.curve("image")


def test_the_reference_of_drift_is_no_part_of_the_version(tmp_path: Path) -> None:
    said = load(tmp_path, GOOD + f"reference: {{image: {[0.1] * 10}}}\n")
    plain = load(tmp_path, GOOD)
    assert said.reference == {"image": (0.1,) * BINS}
    assert plain.reference == {}
    assert said.model_dump_json() == plain.model_dump_json()  # what the card's version is made of


def test_an_experts_own_calibration(tmp_path: Path) -> None:
    said = "{weights: npr-general, calibration: {slope: 2, intercept: 1}}"
    part = load(tmp_path, GOOD.replace("{weights: npr-general}", said)).experts["general"]
    assert (part.calibrated(3.0, "image"), part.calibrated(3.0, "video")) == (7.0, 7.0)
    said = said.replace("}}", "}, video_calibration: {slope: 0.5}}")
    part = load(tmp_path, GOOD.replace("{weights: npr-general}", said)).experts["general"]
    assert (part.calibrated(3.0, "image"), part.calibrated(3.0, "video")) == (7.0, 1.5)


@pytest.mark.parametrize("text", ["", "[]", "experts: {}", "merge: max"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml")


def test_python_objects_in_yaml_stay_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not YAML"):
        load(tmp_path, GOOD + "\nx: !!python/object/apply:os.getcwd []")
