"""Who answers: CAMO, one expert of the store, or a baseline, all behind the same two methods."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from detectors import paths
from detectors.errors import ConfigError, MediaError, PredictionError
from detectors.evaluation.measures import Ranking
from detectors.evaluation.scores import F64, I64, Answer, Bool, Scores
from detectors.evaluation.views import View
from detectors.types import Detector, Prediction

__all__ = ["BASELINES", "DetectorJudge", "FormatProbe", "Judge", "cross_fitted", "load"]

BASELINES = ("always-real", "random", "format-probe")

_FRAMES = 8  # of a video that a single expert sees, as many as CAMO shows its experts
_FOLDS = 5


class Judge(Protocol):
    """Answers views; may have to see all of them before it can.

    Attributes:
        name: as it was asked for.
        about: what the JSON says of it: versions, hashes.
    """

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> Mapping[str, Any]: ...

    def answers(self, views: Sequence[View]) -> list[Answer]:
        """One answer a view, in order."""
        ...

    def finish(self, scores: Scores) -> Scores:
        """Called once with everything recorded, in the order of the calls; most return it as it is."""
        ...


class DetectorJudge:
    """A :class:`~detectors.types.Detector`. A view on which it fails has no answer, and spoils no other's.

    Args:
        name: as it was asked for.
        detector: who predicts.
        about: added to what its card says.
    """

    def __init__(self, name: str, detector: Detector, about: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self._detector = detector
        card = detector.card
        weights = dict(card.options.get("experts", {})) or {card.name: card.key}
        self.about: Mapping[str, Any] = {
            "name": name,
            "version": card.version,
            "architecture": card.architecture,
            "sha256": card.sha256 or None,
            "weights": weights,
            **(about or {}),
        }

    def answers(self, views: Sequence[View]) -> list[Answer]:
        return [_answer(found) for found in self._predict(views)]

    def finish(self, scores: Scores) -> Scores:
        return scores

    def _predict(self, views: Sequence[View]) -> list[Prediction | None]:
        try:
            return list(self._detector.predict([view.media for view in views]))
        except (PredictionError, MediaError):
            if len(views) == 1:
                return [None]
            return [found for view in views for found in self._predict([view])]


def _answer(found: Prediction | None) -> Answer:
    return Answer(None) if found is None else Answer(found.probabilities, dict(found.experts))


class _Constant:
    """Always real."""

    name = "always-real"
    about: Mapping[str, Any] = {"name": "always-real", "version": "1", "weights": {}}

    def answers(self, views: Sequence[View]) -> list[Answer]:
        return [Answer((1.0, 0.0, 0.0))] * len(views)

    def finish(self, scores: Scores) -> Scores:
        return scores


class _Random:
    """P(fake) uniform in [0, 1), a function of seed and view: the same in any order and in any batch."""

    name = "random"

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.about: Mapping[str, Any] = {"name": "random", "version": "1", "seed": seed, "weights": {}}

    def answers(self, views: Sequence[View]) -> list[Answer]:
        return [Answer(Prediction.split(self._draw(f"{view.seen.key}|{view.cell}"))) for view in views]

    def finish(self, scores: Scores) -> Scores:
        return scores

    def _draw(self, key: str) -> float:
        return float(np.random.default_rng([self._seed, zlib.crc32(key.encode())]).random())


class FormatProbe:
    """Sees only size, compression and colour statistics; fitted on the evaluated views, each by the other folds.

    What it scores is what the data leak beside their content: 0.5 AUC is clean, above 0.6 the pipeline leaks.

    Args:
        features: of a view, ``float64 [D]``, finite.
    """

    name = "format-probe"

    def __init__(self, features: Callable[[View], F64]) -> None:
        self._features = features
        self._rows: list[npt.NDArray[np.float32]] = []
        self.about: Mapping[str, Any] = {
            "name": self.name,
            "version": "1",
            "weights": {},
            "fitted": f"{_FOLDS}-fold over groups of the evaluated views; the better of a linear model and boosting",
        }

    def answers(self, views: Sequence[View]) -> list[Answer]:
        self._rows += [self._features(view).astype(np.float32) for view in views]
        return [Answer(None)] * len(views)

    def finish(self, scores: Scores) -> Scores:
        features = np.array(self._rows, np.float64).reshape(len(scores), -1)
        return scores.with_p_fake(cross_fitted(features, scores.fake, scores.groups))


def cross_fitted(features: F64, fake: Bool, groups: I64, *, folds: int = _FOLDS) -> F64:
    """P(fake) ``float64 [N]`` of a model that has seen nothing of the view's own group.

    The better of a logistic regression and a small gradient boosting: a probe should err upwards.

    Args:
        features: ``[N, D]``, finite.
        fake: ``bool [N]``.
        groups: ``int64 [N]``; fold = digest modulo `folds`.
        folds: at least 2.

    Returns:
        NaN where the other folds hold one class only, and everywhere where no fold can be measured.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - half a second
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    linear = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    trees = HistGradientBoostingClassifier(
        max_iter=60, max_depth=3, early_stopping=False, class_weight="balanced", random_state=0
    )
    best, best_auc = np.full(len(fake), math.nan), -1.0
    for model in (linear, trees):
        found = _out_of_fold(model, features, fake, groups % folds)
        known = np.isfinite(found)
        auc = Ranking(found[known], fake[known]).auc()
        if auc > best_auc:
            best, best_auc = found, auc
    return best


def _out_of_fold(model: Any, features: F64, fake: Bool, fold: I64) -> F64:
    found = np.full(len(fake), math.nan)
    for k in np.unique(fold):
        test = fold == k
        if len(np.unique(fake[~test])) == 2:
            found[test] = model.fit(features[~test], fake[~test]).predict_proba(features[test])[:, 1]
    return found


def load(name: str, *, seed: int = 0, threads: int | None = None, weights: Path | None = None) -> Judge:
    """The judge of a name.

    Args:
        name: ``camo``, ``camo:PATH`` (another configuration), ``expert NAME`` or ``expert NAME@VERSION`` of the store
            (also with a colon, or the bare name), ``always-real``, ``random``, ``format-probe``.
        seed: of ``random``.
        threads: of torch, process-wide; None leaves them.
        weights: the weights folder; None is the shipped one.

    Raises:
        ConfigError: unknown name, or a configuration that cannot be used.
        WeightsError: weights are missing, altered or do not fit.
    """
    if name == "always-real":
        return _Constant()
    if name == "random":
        return _Random(seed)
    if name == "format-probe":
        return FormatProbe(_probe_features())
    kind, _, rest = name.replace(":", " ", 1).partition(" ")
    if kind == "camo":
        return _camo(name, Path(rest.strip()) if rest.strip() else None, threads, weights)
    return _expert(name, rest.strip() if kind == "expert" else name, threads, weights)


def _camo(name: str, path: Path | None, threads: int | None, weights: Path | None) -> Judge:
    from detectors import camo  # noqa: PLC0415 - torch from here on

    config = path or paths.configs() / "camo.yaml"
    detector = camo.load(config, threads=threads, weights=weights)
    digest = hashlib.sha256(config.read_bytes()).hexdigest()
    return DetectorJudge(name, detector, {"config": config.name, "config_sha256": digest})


def _expert(name: str, key: str, threads: int | None, weights: Path | None) -> Judge:
    import torch  # noqa: PLC0415

    from detectors.store import Store  # noqa: PLC0415 - imports torch

    if threads is not None:
        torch.set_num_threads(threads)
    store = Store(weights or paths.weights())
    known = sorted({card.name for card in store.cards()})
    if key.partition("@")[0] not in known:
        names = ", ".join(("camo", "camo:PATH", *BASELINES, *(f"expert {n}" for n in known)))
        raise ConfigError(f"--detector {name!r} is unknown; known are {names}")
    return DetectorJudge(name, store.load(key, max_frames=_FRAMES))


def _probe_features() -> Callable[[View], F64]:
    from detectors.training import format_probe  # noqa: PLC0415 - training is needed by this baseline only

    return lambda view: format_probe.features(view.payload)
