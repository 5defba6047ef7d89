"""Numbers land in the configuration, and nothing else moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from detectors import paths
from detectors.camo_config import CurveConfig, load_config
from detectors.errors import ConfigError
from detectors.training.camo_file import changes, put, write
from detectors.training.merge_fit import Fitted

TEXT = """# top
a: 1  # one
b:
  c: 2      # two

  # about d
  d: {x: 1}
  e:
    deep:
      - 1
# about f
f: 3
"""


@pytest.mark.parametrize(
    ("keys", "value", "line"),
    [
        (("a",), 5, "a: 5  # one"),
        (("b", "c"), 0.5, "  c: 0.5      # two"),
        (("b", "d"), {"method": "platt", "knots": [[0.0, 0.5]]}, "  d: {method: platt, knots: [[0.0, 0.5]]}"),
        (("b", "new"), [1, 2], "  new: [1, 2]"),
        (("b", "e", "deep"), 7, "    deep: 7"),
        (("b", "e", "other"), 7, "    other: 7"),
        (("g",), 1.5, "g: 1.5"),
        (("f",), 4, "f: 4"),
    ],
)
def test_one_key_changes_and_the_rest_stays(keys: tuple[str, ...], value: Any, line: str) -> None:
    text = put(TEXT, keys, value)
    assert line in text.splitlines()
    wanted = yaml.safe_load(TEXT)
    at = wanted
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    assert yaml.safe_load(text) == wanted
    assert [c for c in TEXT.splitlines() if c.strip().startswith("#")] == [
        c for c in text.splitlines() if c.strip().startswith("#")
    ]
    assert put(text, keys, value) == text


@pytest.mark.parametrize("keys", [("a",), ("b", "c"), ("b", "e"), ("b", "e", "deep"), ("f",)])
def test_a_key_goes_with_all_that_is_below_it(keys: tuple[str, ...]) -> None:
    wanted = yaml.safe_load(TEXT)
    at = wanted
    for key in keys[:-1]:
        at = at[key]
    del at[keys[-1]]
    found = yaml.safe_load(put(TEXT, keys, None))
    assert found == wanted or (keys == ("b", "e", "deep") and found["b"]["e"] is None)


def test_what_is_not_there_cannot_hold_a_key_but_need_not_be_removed() -> None:
    assert put(TEXT, ("nobody", "x"), None) == TEXT
    assert put(TEXT, ("a", "x"), None) == TEXT
    for keys in (("nobody", "x"), ("a", "x"), ("b", "d", "x")):
        with pytest.raises(ConfigError, match="no block"):
            put(TEXT, keys, 1)


def test_the_shipped_configuration_takes_a_fit_and_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "camo.yaml"
    path.write_text((paths.configs() / "camo.yaml").read_text())
    before = load_config(path)
    names = tuple(before.experts)
    isotonic = CurveConfig(method="isotonic", intercept=-0.25, knots=((-1.0, 0.00001), (1e-6, 0.5), (1.0, 0.9)))
    platt = CurveConfig(slope=0.7, intercept=1e-5)
    fit = Fitted(
        names=names,
        weights=tuple(0.1 * (k + 1) for k in range(len(names))),
        experts=(platt, *[CurveConfig(method="identity")] * (len(names) - 1)),
        merge=isotonic,
        spread=0.3,
        gates={"face": platt},
    )
    write(path, changes(fit, fit, own_weights=True))
    after = load_config(path)
    assert after.merge_calibration == after.video.merge_calibration == isotonic
    assert (after.spread("image"), after.spread("video")) == (0.3, 0.3)
    assert after.gate_calibration == after.video.gate_calibration == {"face": platt}
    assert [after.experts[n].weight for n in names] == pytest.approx(fit.weights)
    assert [after.experts[n].video_weight for n in names] == pytest.approx(fit.weights)
    assert after.experts[names[0]].calibration == platt
    assert after.experts[names[0]].video_calibration == platt
    assert all(after.experts[n].calibration is None for n in names[1:])
    kept = [line for line in (paths.configs() / "camo.yaml").read_text().splitlines() if line.strip().startswith("#")]
    assert all(line in path.read_text() for line in kept)
    plain = Fitted(names, fit.weights, (CurveConfig(method="identity"),) * len(names), platt)
    write(path, changes(plain, None, own_weights=False))
    again = load_config(path)
    assert again.curve("video") == again.curve("image") == platt.curve
    assert again.spread("image") == again.spread("video") == 0.0
    assert not again.gate_calibration
    assert all(p.calibration is None and p.video_weight is None for p in again.experts.values())
    untouched = ("merge", "gates", "semisynthetic", "deadline")
    assert all(getattr(again, name) == getattr(before, name) for name in untouched)


def test_a_file_that_would_not_load_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "camo.yaml"
    path.write_text((paths.configs() / "camo.yaml").read_text())
    with pytest.raises(ConfigError):
        write(path, {("merge_spread",): -1.0})
    assert path.read_text() == (paths.configs() / "camo.yaml").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["camo.yaml"]
