"""What an operator may write, and what the answer to a slip is."""

from __future__ import annotations

from pathlib import Path

import pytest

from detectors import paths
from detectors.camo_config import CamoConfig, load_config
from detectors.errors import ConfigError

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
