from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from detectors.evaluation.report import clean, figures, reliability, report
from detectors.evaluation.scores import Answer
from detectors.types import Prediction
from tests.detectors.evaluation.made_scores import noisy, scores

P = [0.1, 0.6, 0.2, 0.9, 0.4, 0.7]
LABELS = [0, 0, 0, 1, 1, 2]
SOURCES = ["cam", "cam", "web", "gan", "gan", "mixed"]


def test_sources_are_measured_against_all_of_the_other_class() -> None:
    found = report(scores(P, LABELS, source=SOURCES), rounds=20)
    fakes = [0.9, 0.4, 0.7]
    cam, gan = found["by_source"]["cam"], found["by_source"]["gan"]
    assert cam["auc"] == pytest.approx(roc_auc_score([0, 0, 1, 1, 1], [0.1, 0.6, *fakes]))
    assert gan["auc"] == pytest.approx(roc_auc_score([0, 0, 0, 1, 1], [0.1, 0.6, 0.2, 0.9, 0.4]))
    assert (cam["n"], cam["real"], cam["fake"], cam["tnr"], cam["right"]) == (2, 2, 0, 0.5, 0.5)
    assert "tpr" not in cam
    assert (gan["tpr"], found["by_source"]["mixed"]["semisynthetic"]) == (0.5, 1)
    assert found["tnr_by_real_source"] == {
        "cam": {"n": 2, "tnr": 0.5, "interval": None},
        "web": {"n": 1, "tnr": 1.0, "interval": None},
    }
    assert found["over_sources"]["tnr"] == pytest.approx(0.75)
    assert found["over_sources"]["tpr"] == pytest.approx(0.75)


def test_a_source_of_both_classes_is_measured_within_itself() -> None:
    row = report(scores(P, LABELS, source=["a", "b", "b", "a", "b", "b"]), rounds=20)["by_source"]["b"]
    assert row["auc"] == pytest.approx(roc_auc_score([0, 0, 1, 1], [0.6, 0.2, 0.4, 0.7]))
    assert (row["tnr"], row["tpr"], row["real"], row["fake"]) == (0.5, 0.5, 2, 2)


def test_breakdowns_hold_the_figures_of_their_rows() -> None:
    rng = np.random.default_rng(0)
    content = rng.choice(["face", "art"], 200).tolist()
    level = rng.integers(0, 4, 200).tolist()
    modality = rng.choice(["image", "video"], 200).tolist()
    every = noisy(200, content=content, level=level, modality=modality)
    found = report(every, rounds=20)
    for name in ("face", "art"):
        assert found["by_content"][name] == clean(figures(every.part(np.array(content) == name)))
    assert {k: v["n"] for k, v in found["by_level"].items()} == {str(k): level.count(k) for k in range(4)}
    assert found["by_modality"]["video"]["n"] == modality.count("video")
    assert found["by_modality"]["video"]["auc"] == figures(every.part(every.video))["auc"]
    assert sum(row["n"] for row in found["reliability"]) == 200


def test_one_class_gives_null_and_strict_json() -> None:
    found = report(scores([0.1, None, 0.7], [0, 0, 0]), rounds=20)
    assert found["auc"] is None
    assert found["balanced_accuracy"] is None
    assert (found["n"], found["answered"], found["tnr"]) == (3, 2, 0.5)
    assert found["by_source"]["reals"]["auc"] is None
    assert found["intervals"]["auc"] is None
    json.dumps(found, allow_nan=False)


def test_no_view_at_all() -> None:
    found = report(scores([], []), rounds=20)
    assert (found["n"], found["auc"], found["by_source"]) == (0, None, {})
    json.dumps(found, allow_nan=False)


def test_the_same_seed_gives_the_same_report() -> None:
    one, two, other = (json.dumps(report(noisy(80), rounds=50, seed=s)) for s in (3, 3, 4))
    assert one == two
    assert one != other


def test_reliability_puts_a_half_in_the_middle_and_one_in_the_last_bin() -> None:
    rows = reliability(scores([0.5, 1.0, 1.0, 0.0], [1, 1, 0, 0]))
    assert [k for k, row in enumerate(rows) if row["n"]] == [0, 7, 14]
    assert rows[14] == {"low": 14 / 15, "high": 1.0, "n": 2, "mean_p_fake": 1.0, "share_fake": 0.5}
    assert rows[1]["mean_p_fake"] is None


def test_experts_count_where_they_ran() -> None:
    answers = [Answer(Prediction.split(p), {"e": p} if k % 2 else {}) for k, p in enumerate(P)]
    found = report(scores(P, LABELS, answer=answers), rounds=20)["experts"]["e"]
    assert (found["n"], found["real"], found["fake"]) == (3, 1, 2)
    assert found["auc"] == pytest.approx(roc_auc_score([0, 1, 1], [0.6, 0.9, 0.7]))
