"""Every figure against scikit-learn, and the cases that scikit-learn does not settle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics

from detectors.calibration import expected_calibration_error
from detectors.evaluation.measures import Measures, Ranking, interval, said_class, said_fake
from detectors.evaluation.scores import Scores
from detectors.types import Prediction
from tests.detectors.evaluation.made_scores import noisy, scores


def resampled_by_hand(found: Scores, counts: dict[int, int]) -> Scores:
    index = [k for k, group in enumerate(found.groups.tolist()) for _ in range(counts[group])]
    return found.part(np.array(index))


def reference(found: Scores) -> dict[str, float]:
    fake, p = found.fake, found.p_fake
    said = np.round(p) == 1
    return {
        "auc": metrics.roc_auc_score(fake, p),
        "ap": metrics.average_precision_score(fake, p),
        "accuracy": metrics.accuracy_score(fake, said),
        "balanced_accuracy": metrics.balanced_accuracy_score(fake, said),
        "tpr": metrics.recall_score(fake, said),
        "tnr": metrics.recall_score(~fake, ~said),
        "mcc": metrics.matthews_corrcoef(fake, said),
        "brier": metrics.brier_score_loss(fake, p),
        "ece": expected_calibration_error(p, fake),
        "three_class_mcc": metrics.matthews_corrcoef(found.labels, found.probabilities.argmax(axis=1)),
    }


@pytest.mark.parametrize("seed", range(3))
def test_figures_agree_with_scikit_learn_ties_included(seed: int) -> None:
    found = noisy(300, seed=seed)
    assert len(np.unique(found.p_fake)) < 150
    point = Measures(found).point()
    for name, value in reference(found).items():
        assert point[name] == pytest.approx(value, abs=1e-12), name


def test_resampled_figures_are_those_of_the_resampled_rows() -> None:
    groups = [f"g{k % 17}" for k in range(200)]
    found = noisy(200, seed=4, group=groups)
    names = np.unique(found.groups)
    counts = np.random.default_rng(1).integers(0, 4, len(names))
    at = Measures(found).at(counts[None].astype(float))
    by_hand = reference(resampled_by_hand(found, dict(zip(names.tolist(), counts.tolist(), strict=True))))
    for name, value in by_hand.items():
        assert float(at[name][0]) == pytest.approx(value, abs=1e-12), name


def test_three_classes() -> None:
    found = noisy(120, seed=5)
    rng = np.random.default_rng(0)
    three = rng.dirichlet([1, 1, 1], 120)
    found = Scores(**{name: getattr(found, name) for name in Scores.__slots__} | {"probabilities": three})
    found.labels[:40] = 2
    measures = Measures(found)
    said = three.argmax(axis=1)
    assert measures.point()["three_class_mcc"] == pytest.approx(metrics.matthews_corrcoef(found.labels, said))
    assert measures.confusion.tolist() == metrics.confusion_matrix(found.labels, said).tolist()


def test_exactly_a_half_is_real_and_the_first_class_wins_a_tie() -> None:
    assert said_fake(np.array([0.5, np.nextafter(0.5, 1), 0.0, 1.0, np.nan])).tolist() == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert said_class(np.array([[0.5, 0.5, 0.0], [0.2, 0.4, 0.4]])).tolist() == [0, 1]
    assert Measures(scores([0.5, 0.5], [0, 1])).point()["tnr"] == 1.0
    assert Measures(scores([0.5, 0.5], [0, 1])).point()["tpr"] == 0.0


def test_views_without_an_answer_are_left_out() -> None:
    some = scores([0.1, None, 0.8, None, 0.7], [0, 0, 1, 1, 0])
    assert Measures(some).n == 3
    assert Measures(some).point() == Measures(scores([0.1, 0.8, 0.7], [0, 1, 0])).point()


@pytest.mark.parametrize(("labels", "defined", "undefined"), [([0, 0], "tnr", "tpr"), ([1, 2], "tpr", "tnr")])
def test_one_class(labels: list[int], defined: str, undefined: str) -> None:
    point = Measures(scores([0.2, 0.7], labels)).point()
    assert point[defined] == 0.5
    assert point["mcc"] == 0.0
    for name in (undefined, "auc", "ap", "balanced_accuracy", "brier_balanced", "ece_balanced"):
        assert math.isnan(point[name]), name
    assert point["brier"] == pytest.approx(np.mean([(0.2 - min(labels[0], 1)) ** 2, (0.7 - min(labels[1], 1)) ** 2]))


def test_nothing_at_all() -> None:
    point = Measures(scores([], [])).point()
    assert math.isnan(point["accuracy"])
    assert math.isnan(point["brier"])
    assert math.isnan(Ranking(np.zeros(0), np.zeros(0, bool)).auc())


def test_balanced_figures_do_not_depend_on_how_many_of_each_class_there_are() -> None:
    few = Measures(scores([0.2, 0.9, 0.6], [0, 1, 1])).point()
    many = Measures(scores([0.2] * 6 + [0.9, 0.6], [0] * 6 + [1, 1])).point()
    assert many["brier"] != pytest.approx(few["brier"])
    for name in ("brier_balanced", "ece_balanced", "balanced_accuracy", "auc"):
        assert many[name] == pytest.approx(few[name]), name
    assert few["brier_balanced"] == pytest.approx((0.04 + (0.01 + 0.16) / 2) / 2)
    assert few["ece_balanced"] == pytest.approx((0.2 + (0.1 + 0.4) / 2) / 2)


def test_sn34_score_of_a_perfect_an_unsure_and_a_wrong_detector() -> None:
    perfect, unsure, wrong = (Measures(scores(p, [0, 1])).point() for p in ([0.0, 1.0], [0.5, 0.5], [1.0, 0.0]))
    assert perfect["sn34_score"] == pytest.approx(1.0)
    assert unsure["sn34_score"] == 0.0
    assert wrong["sn34_score"] == 0.0
    half = Measures(scores([0.25, 0.75], [0, 1])).point()["sn34_score"]
    assert half == pytest.approx(math.sqrt(((0.25 - 0.0625) / 0.25) ** 1.8))


def test_intervals_follow_the_seed_hold_the_value_and_narrow_with_data() -> None:
    measures = Measures(noisy(100))
    once, again, other = (measures.resampled(200, seed) for seed in (0, 0, 1))
    assert once["auc"].tolist() == again["auc"].tolist()
    assert once["auc"].tolist() != other["auc"].tolist()
    spans = [interval(Measures(noisy(n)).resampled(200, 0)["auc"]) for n in (100, 1600)]
    for n, span in zip((100, 1600), spans, strict=True):
        assert span is not None
        assert span[0] <= Measures(noisy(n)).point()["auc"] <= span[1]
    assert spans[0] is not None
    assert spans[1] is not None
    assert spans[1][1] - spans[1][0] < 0.5 * (spans[0][1] - spans[0][0])


def test_views_of_one_group_count_as_one() -> None:
    """Ten copies of each view, in the view's group, tell nothing more: the interval stays."""
    base = noisy(60, seed=2)
    copies = base.part(np.tile(np.arange(60), 10))
    one, ten = (interval(Measures(s).resampled(300, 0)["auc"]) for s in (base, copies))
    assert one == pytest.approx(ten)


def test_an_interval_needs_the_figure_to_be_defined_in_half_of_the_resamples() -> None:
    assert interval([np.nan, np.nan, 0.5]) is None
    assert interval([np.nan, 0.5, 0.5]) == [0.5, 0.5]
    assert interval([]) is None


def test_p_fake_of_a_prediction_survives_the_columns() -> None:
    p = 0.1 + 0.2
    assert scores([p], [1]).p_fake[0] == Prediction(Prediction.split(p)).p_fake
