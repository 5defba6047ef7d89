from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detectors import paths
from detectors.calibration import MergeFit
from detectors.camo_config import load_config
from detectors.merge import logit
from scripts.fit_merge import learned, write


def test_the_numbers_land_in_the_configuration_and_nothing_else_moves(tmp_path: Path) -> None:
    shipped = paths.configs() / "camo.yaml"
    path = tmp_path / "camo.yaml"
    path.write_text(shipped.read_text())
    before = load_config(path)
    names = list(before.experts)
    fit = MergeFit(tuple(0.1 * (k + 1) for k in range(len(names))), 1.25, -0.5)
    write(fit, names, path)
    after = load_config(path)
    assert [after.experts[n].weight for n in names] == pytest.approx(fit.weights)
    assert (after.merge_slope, after.merge_intercept) == (1.25, -0.5)
    assert (
        after.model_copy(
            update={
                "experts": before.experts,
                "merge_slope": before.merge_slope,
                "merge_intercept": before.merge_intercept,
            }
        )
        == before
    )
    kept = [line for line in shipped.read_text().splitlines() if line.strip().startswith("#")]
    assert all(line in path.read_text() for line in kept)


def test_an_expert_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "camo.yaml"
    path.write_text((paths.configs() / "camo.yaml").read_text())
    with pytest.raises(SystemExit, match="nobody"):
        write(MergeFit((1.0,), 1.0, 0.0), ["nobody"], path)


def test_the_learned_column_is_the_merge_that_serves() -> None:
    fit = MergeFit((0.75, 0.25), 2.0, 0.1)
    z = learned(fit, ["a", "b"], np.array([[1.0, -1.0], [0.5, np.nan]]))
    assert z == pytest.approx([2.0 * 0.5 + 0.1, 2.0 * 0.5 + 0.1], abs=1e-6)
    assert logit(0.5) == 0.0
