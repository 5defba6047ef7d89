"""The fit finds what made the sheet, serves what it fitted, and says what it is worth on other groups."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detectors.calibration import GOALS
from detectors.camo import Camo
from detectors.camo_config import CamoConfig
from detectors.curve import Curve
from detectors.errors import ConfigError
from detectors.merge import logit
from detectors.training.camo_file import changes
from detectors.training.fit import fit_images, fit_videos
from detectors.training.merge_fit import Settings, configured, figures, fit_merge, weights_of
from detectors.training.merge_sheet import Sheet
from detectors.types import Media
from tests.detectors.fixtures_camo import CornerGate, FakeExpert
from tests.detectors.training.sheets import sheet

FAST = Settings(GOALS["sn34-2.0"], rounds=40, folds=3)
BEFORE = CamoConfig.model_validate(
    {
        "gates": {"face": {}},
        "experts": {
            "good": {"weights": "good"},
            "noise": {"weights": "noise"},
            "face": {"weights": "face", "content": "face"},
        },
    }
)


def test_the_fit_is_better_on_groups_it_has_not_seen() -> None:
    rows = sheet(bias=0.8)
    before = configured(BEFORE, rows.names, "image")
    fitted, report = fit_images(rows, FAST, before)
    was, now = report["figures"]["merge as it was"], report["figures"]["merge as fitted"]
    assert now["brier"] < was["brier"] - 0.02
    assert now["ece"] < was["ece"]
    assert now["reward sn34-2.0"] > was["reward sn34-2.0"] + 0.02
    assert now["auc"] > report["figures"]["good"]["auc"]
    assert now["views"] == was["views"] < len(rows)
    changed = dataclasses.replace(rows, logits=rows.logits * [1.0, -1.0, 1.0])  # what is noise moves nothing
    np.testing.assert_allclose(fitted.logits(changed), fitted.logits(rows), atol=0.5)
    assert sum(row["count"] for row in report["reliability"]) == now["views"]


def test_made_fakes_have_their_share_whatever_their_number() -> None:
    rows = sheet(600)
    made = np.where((rows.labels == 1) & (np.arange(600) % 3 == 0), "made:grid", rows.sources)
    rows = dataclasses.replace(rows, sources=made.astype(str))
    for share in (0.1, 0.6):
        w = weights_of(rows, dataclasses.replace(FAST, made=share))
        assert w[rows.labels == 0].sum() == pytest.approx(w[rows.labels == 1].sum())
        assert w[made == "made:grid"].sum() / w[rows.labels == 1].sum() == pytest.approx(share)


def test_a_gate_gets_a_curve_only_where_it_earns_one() -> None:
    rows = sheet(1800)
    assert not fit_merge(rows, FAST).gates
    logits = rows.logits.copy()
    logits[rows.fired[:, 0]] = -2.0 + 0.3 * logits[rows.fired[:, 0]]  # all experts err where the gate fires
    skewed = dataclasses.replace(rows, logits=logits)
    fitted = fit_merge(skewed, dataclasses.replace(FAST, experts=False))
    assert set(fitted.gates) == {"face"}
    assert fitted.gates["face"].curve != fitted.merge.curve
    without = fit_merge(skewed, dataclasses.replace(FAST, experts=False, by_gate=False))
    assert (
        figures(fitted.logits(skewed), skewed, FAST)["brier"] < figures(without.logits(skewed), skewed, FAST)["brier"]
    )


def test_what_was_fitted_is_what_is_served() -> None:
    """The numbers through configuration and Camo give the answers that the figures are of."""
    rows = sheet(600, bias=0.5)
    fitted = fit_merge(rows, dataclasses.replace(FAST, methods=("isotonic",)))
    assert fitted.merge.knots
    raw = BEFORE.model_dump()
    for keys, value in changes(fitted, None, own_weights=False).items():
        at = raw
        for key in keys[:-1]:
            at = at[key]
        if value is None:
            at.pop(keys[-1], None)
        else:
            at[keys[-1]] = value
    read = CamoConfig.model_validate(raw)
    assert read.curve("image") == fitted.merge.curve
    greys = (90, 128, 150)
    for corner in (0, 1):  # the gate shut, and open
        served = Camo(
            read, {n: FakeExpert(n, 0.1 * k) for k, n in enumerate(rows.names)}, {"face": CornerGate("face", 1)}
        )
        images = [np.full((16, 16, 3), grey, np.uint8) for grey in greys]
        for image in images:
            image[0, 0] = corner
        values = np.array([[(grey - 128) / 10 + 0.1 * k for k in range(3)] for grey in greys])
        values[:, 2] = values[:, 2] if corner else np.nan
        same = rows.part(np.arange(3))
        same = dataclasses.replace(same, logits=values, fired=np.full((3, 1), bool(corner)))
        answers = [logit(p.p_fake) for p in served.predict([Media(image) for image in images])]
        np.testing.assert_allclose(answers, fitted.logits(same), atol=2e-3)


@pytest.mark.parametrize("count", [90, 8])
def test_few_videos_are_cross_fitted_with_the_images_weights(count: int) -> None:
    images = fit_merge(sheet(600), FAST)
    videos = sheet(count, seed=5, bias=1.0)
    if count == 8:
        videos = videos.part(videos.groups == "g0")
    before = configured(BEFORE, videos.names, "video")
    fitted, report = fit_videos(videos, FAST, images, before, own_weights=False)
    if count == 8:
        assert fitted is None
        assert "too few" in report["how"] or "at least two groups" in report["how"]
        return
    assert fitted is not None
    assert "cross-fitting" in report["how"]
    assert fitted.weights == images.weights
    assert fitted.experts == images.experts
    assert not fitted.merge.knots
    crossed, inside = report["figures"]["merge as fitted"], figures(fitted.logits(videos), videos, FAST)
    assert crossed["views"] == count
    assert crossed["brier"] >= inside["brier"] - 1e-3  # figures of groups that the fit has not seen are no better
    assert crossed["brier"] < report["figures"]["merge by the images' numbers"]["brier"]


def test_many_videos_have_numbers_of_their_own() -> None:
    images, videos = fit_merge(sheet(300), FAST), sheet(400, seed=6, bias=1.0)
    before = configured(BEFORE, videos.names, "video")
    fitted, report = fit_videos(videos, FAST, images, before, own_weights=True)
    assert fitted is not None
    assert fitted.weights != images.weights
    assert "one half" in report["how"]
    found = changes(images, fitted, own_weights=True)
    assert found["experts", "noise", "video_weight"] == round(fitted.weights[1], 4)
    assert found["video", "merge_calibration"]["slope"] == fitted.merge.slope


def test_what_a_configuration_says_is_what_its_merge_answers() -> None:
    said = {
        "merge_calibration": {"slope": 2.0, "intercept": 0.3},
        "merge_spread": 0.2,
        "gate_calibration": {"face": {"slope": 0.5}},
        "video": {"merge_slope": 3.0},
    }
    raw = BEFORE.model_dump(exclude={"merge_slope", "merge_intercept", "merge_calibration", "video"}) | said
    raw["experts"]["good"] |= {"weight": 2.0, "video_weight": 5.0, "calibration": {"slope": 1.5}}
    read = CamoConfig.model_validate(raw)
    rows = sheet(6)
    found = configured(read, rows.names, "image")
    assert found.weights == (2.0, 1.0, 1.0)
    assert found.experts[0].curve == Curve(1.5)
    merged = found.merged(rows)
    slopes = np.where(rows.fired[:, 0], 0.5, 2.0)
    np.testing.assert_allclose(found.logits(rows), slopes * merged + np.where(rows.fired[:, 0], 0.0, 0.3))
    video = configured(read, rows.names, "video")
    assert (video.weights, video.merge.curve) == ((5.0, 1.0, 1.0), Curve(3.0))


def test_too_few_groups_are_refused() -> None:
    rows = sheet(30)
    with pytest.raises(ConfigError, match="two groups"):
        fit_merge(rows.part(rows.groups == "g1"), FAST)


def test_figures_leave_out_rows_without_an_answer() -> None:
    rows: Sheet = sheet(300)
    found = figures(rows.logits[:, 2], rows, FAST)
    assert found["views"] == int(rows.fired.sum())
    assert set(figures(np.full(300, np.nan), rows, FAST)) == {"views"}
    perfect = figures(np.where(rows.labels == 1, 20.0, -20.0), rows, FAST)
    assert (perfect["brier"], perfect["reward sn34-2.0"], perfect["sn34-4"]) == (0.0, 1.0, 1.0)
