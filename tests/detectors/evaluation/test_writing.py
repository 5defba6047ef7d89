"""Leave-one-out tables, Markdown and plots from real reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detectors.errors import ConfigError
from detectors.evaluation import compare, compose, markdown, plots
from detectors.evaluation.report import brief, report
from detectors.evaluation.scores import Scores
from tests.detectors.evaluation.made_scores import noisy, scores


def of(found: Scores) -> dict[str, Any]:
    return report(found, rounds=20)


def left_out(p_real: list[float], p_fake: list[float]) -> dict[str, Any]:
    labels = [0] * len(p_real) + [1] * len(p_fake)
    return of(scores(p_real + p_fake, labels, source=["web"] * len(p_real) + ["zoo"] * len(p_fake)))


def test_leave_one_out_takes_each_row_from_its_own_run() -> None:
    runs = {
        "gan": left_out([0.1, 0.2, 0.3, 0.9], [0.6, 0.4]),
        "source:web": left_out([0.1, 0.9], [0.8]),
        "source:zoo": left_out([0.1], [0.8, 0.9]),
    }
    found = compose.leave_one_out(runs)
    assert found["fakes"]["gan"]["tpr"] == 0.5
    assert found["fakes"]["gan"]["tnr"] == 0.75
    assert found["fakes"]["gan"]["balanced_accuracy"] == pytest.approx(0.625)
    assert found["reals"]["source:web"]["tnr"] == 0.5
    assert found["mean"] == {"balanced_accuracy": pytest.approx((0.625 + 1.0) / 2), "tnr": 0.5}
    assert found["least"] == {"balanced_accuracy": pytest.approx(0.625), "tnr": 0.5}
    text = markdown.leave_one_out(found)
    assert "| gan | 2 | " in text
    assert "| mean |" in text


def test_a_run_that_does_not_hold_what_was_left_out_is_refused() -> None:
    with pytest.raises(ConfigError, match="nobody"):
        compose.leave_one_out({"nobody": left_out([0.1], [0.9])})
    with pytest.raises(ConfigError, match="web"):
        compose.leave_one_out({"generator:web": left_out([0.1], [0.9])})


def full(found: Scores) -> dict[str, Any]:
    mine = of(found) | {"detector": {"name": "one", "weights": {"e": "e@1"}}}
    return mine | {
        "reward": {"sn34-2.0": {"median": 0.5, "mean": 0.5, "interval": [0.4, 0.6], "note": "a|b"}},
        "data": {"description": "pool", "level": "0", "seed": 0},
        "command": "deepfake-miner evaluate",
        "detectors": {"one": mine, "two": mine},
        "compare": {"one against two": compare.paired(found, found, rounds=5)},
        "undecodable": 1,
        "undecodable_files": [{"key": "a.jpg", "reason": "empty", "detail": "no bytes"}],
        "grid": {"scale 1": brief(found)},
    }


@pytest.mark.parametrize("found", [noisy(60), scores([0.2, None], [0, 0]), scores([], [])])
def test_markdown_has_every_table_and_no_crooked_row(found: Scores) -> None:
    text = markdown.page(full(found))
    for title in ("By source", "Simulated reward", "Robustness grid", "Three classes", "Not decodable: 1"):
        assert f"## {title}" in text
    assert "nan" not in text.lower().replace("pertinant", "")
    blocks = [block.strip().splitlines() for block in text.split("\n\n") if block.strip().startswith("|")]
    assert blocks
    for block in blocks:
        assert len({line.replace("\\|", "").count("|") for line in block}) == 1


@pytest.mark.parametrize("found", [noisy(60), scores([0.2, None], [0, 0]), scores([], [])])
def test_plots_are_pictures_also_of_little(found: Scores, tmp_path: Path) -> None:
    made = full(found)
    files = plots.write(tmp_path / "plots", {"one": found}, {"one": {**made}})
    assert [f.name for f in files] == ["reliability.png", "roc.png", "sources.png", "grid.png"]
    for file in files:
        picture = cv2.imread(str(file))
        assert picture is not None
        assert np.asarray(picture).std() > 5
