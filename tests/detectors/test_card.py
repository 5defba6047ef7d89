"""Cards survive the disk, and a card that says something unknown is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detectors.card import Card, Preprocess
from detectors.curve import Curve
from detectors.errors import WeightsError

CARD = Card(
    name="npr-general",
    version="1.2.0",
    architecture="npr",
    options={"trunk": "resnet50"},
    sha256="ab" * 32,
    preprocess=Preprocess(size=224, mode="centre_square", mean=(0.5, 0.5, 0.5), channels="BGR"),
    calibration=Curve(1.5, -0.25),
    golden={"noise": 0.25},
    metrics={"accuracy": {"value": 0.9, "n": 100}},
)


def test_round_trip(tmp_path: Path) -> None:
    assert Card.from_json(CARD.to_json()) == CARD
    path = tmp_path / f"{CARD.stem}.json"
    path.write_text(CARD.to_json(), encoding="utf-8")
    assert Card.load(path) == CARD
    assert (CARD.key, CARD.stem) == ("npr-general@1.2.0", "npr-general-1.2.0")
    assert Card.from_json(CARD.to_json()).to_json() == CARD.to_json()


def test_defaults_fill_what_is_left_out() -> None:
    card = Card.from_json('{"name": "a", "version": "1", "architecture": "npr"}')
    assert card.preprocess == Preprocess()
    assert card.calibration == Curve(1.0, 0.0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"architecure": "npr"}, "architecure"),
        ({"preprocess": {"sise": 1}}, "sise"),
        ({"calibration": {"slope": 1.0, "temperature": 2.0}}, "temperature"),
        ({"calibration": 3}, "not usable"),
    ],
)
def test_unknown_keys_are_named(change: dict[str, object], word: str) -> None:
    with pytest.raises(WeightsError, match=word):
        Card.from_json(json.dumps(json.loads(CARD.to_json()) | change))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"name": "a"}'])
def test_what_is_no_card_is_refused(text: str) -> None:
    with pytest.raises(WeightsError):
        Card.from_json(text)


def test_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone-1\.json"):
        Card.load(tmp_path / "gone-1.json")
