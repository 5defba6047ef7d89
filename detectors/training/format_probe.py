"""The format probe: what can be told of a label from size, compression and colour alone, without a look at content.

A pipeline that treats real and fake alike leaves such a probe near chance. Two uses: on files as they are stored, where
a high figure says that the collections differ (they do; that is why everything is brought to one history), and on the
training view, where a figure above :data:`LEAK` says that the pipeline itself gives the label away.

Colour and compressibility are partly content: reals and fakes of different subjects differ in them without any fault
of the pipeline. So the report names what drives the figure, and gives it for each family of features alone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

from detectors import media
from detectors.evaluation.measures import Ranking, interval
from detectors.limits import LOCAL_LIMITS
from detectors.types import U8

__all__ = [
    "FAMILIES",
    "LEAK",
    "NAMES",
    "Family",
    "ProbeReport",
    "Views",
    "features",
    "fit_probe",
    "jpeg_quality",
    "probe_views",
]

F64 = npt.NDArray[np.float64]
Family = Literal["size", "compression", "colour"]

LEAK: Final = 0.6
"""AUC above which the training view leaks."""

FAMILIES: Final[dict[Family, tuple[str, ...]]] = {
    "size": ("width", "height", "log_pixels", "aspect"),
    "compression": (
        "jpeg_quality",
        "luma_table_mean",
        "chroma_table_mean",
        "subsampling",
        "bytes_per_pixel",
        "is_jpeg",
        "is_png",
        "is_webp",
        "is_gif",
    ),
    "colour": ("red_mean", "green_mean", "blue_mean", "red_std", "green_std", "blue_std"),
}
NAMES: Final = tuple(name for names in FAMILIES.values() for name in names)
"""What :func:`features` gives, in order."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_FOLDS = 5
_ROUNDS = 300
_LUMA_SUM = 3688  # of the luminance table K.1 in ITU-T T.81, which is quality 50
_JPEG = 75  # the quality at which validators, and so the training views, are saved


class Views(Protocol):
    """A batch as ``detectors.training.samples`` gives it: first half real, second half fake."""

    @property
    def pixels(self) -> U8:
        """``uint8 [B, H, W, 3]``."""

    @property
    def labels(self) -> npt.NDArray[np.uint8]:
        """``uint8 [B]``, 1 for fake."""

    @property
    def paired(self) -> npt.NDArray[np.bool_]:
        """``bool [B / 2]``: sample B/2 + k was made from sample k."""


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What the probe found.

    Attributes:
        n, reals, fakes: views.
        auc, low, high: cross-fitted AUC of all features and its 95 % bootstrap interval over groups.
        model: which of the two models it is of, the one with the higher AUC (a probe should err upwards).
        families: AUC of the same model on each family alone.
        drivers: AUC of single features by value, max(AUC, 1 − AUC), the highest first; constant ones left out.
    """

    n: int
    reals: int
    fakes: int
    auc: float
    low: float
    high: float
    model: str
    families: dict[Family, float]
    drivers: tuple[tuple[str, float], ...]

    @property
    def leaks(self) -> bool:
        """Whether the AUC is above :data:`LEAK`."""
        return self.auc > LEAK

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "drivers": dict(self.drivers), "leaks": self.leaks}

    def __str__(self) -> str:
        first = ", ".join(f"{name} {auc:.3f}" for name, auc in self.drivers[:3]) or "none"
        alone = ", ".join(f"{name} {auc:.3f}" for name, auc in self.families.items())
        said = "leaks" if self.leaks else "clean"
        return (
            f"format probe: {said}, AUC {self.auc:.3f} [{self.low:.3f}, {self.high:.3f}] ({self.model}, {self.n} "
            f"views); families alone: {alone}; strongest single features: {first}"
        )


def features(view: bytes | U8) -> F64:
    """What the probe sees of one image, ``float64 [len(NAMES)]``, finite.

    Args:
        view: an image file's bytes; or a training view, RGB ``uint8 [H, W, 3]``, which is saved as JPEG at quality 75
            first, as it arrived.

    Raises:
        MediaError: bytes that are no image.
    """
    data = view if isinstance(view, bytes) else media.encode_jpeg(view, quality=_JPEG)
    pixels = media.decode_image(data, limits=LOCAL_LIMITS).pixels if isinstance(view, bytes) else view
    height, width = pixels.shape[:2]
    size = [width, height, math.log2(width * height), width / height]
    compression = [*_tables(data), len(data) / (width * height), *_kind(data)]
    flat = pixels.reshape(-1, 3)
    colour = [*flat.mean(axis=0).tolist(), *flat.std(axis=0).tolist()]
    return np.array([*size, *compression, *colour], np.float64)


def jpeg_quality(luma_sum: float) -> float:
    """The libjpeg quality, in (0, 100], whose luminance table has this sum; an estimate for other encoders' tables."""
    scale = 100 * luma_sum / _LUMA_SUM
    return 100 - scale / 2 if scale <= 100 else 5000 / scale


def fit_probe(
    rows: npt.ArrayLike, labels: npt.ArrayLike, groups: Sequence[Any], *, rounds: int = _ROUNDS, seed: int = 0
) -> ProbeReport:
    """Fits the probe and measures it on groups it was not fitted on.

    Two models, each by five-fold cross-fitting over groups: a logistic regression and a small gradient boosting.

    Args:
        rows: ``float64 [N, len(NAMES)]``.
        labels: ``[N]``, above 0 for fake.
        groups: N values; equal ones share a fold.
        rounds: of the bootstrap over groups.
        seed: of folds, models and bootstrap.

    Raises:
        ValueError: shapes do not match, or a class has fewer than five groups.
    """
    x, y = np.asarray(rows, np.float64), np.asarray(labels) > 0
    _, group = np.unique(np.asarray([str(g) for g in groups]), return_inverse=True)
    if x.shape != (len(y), len(NAMES)) or len(group) != len(y):
        raise ValueError(f"rows {x.shape}, labels {y.shape} and groups {group.shape} do not match")
    if min(len(np.unique(group[y == value])) for value in (False, True)) < _FOLDS:
        raise ValueError(f"either class needs {_FOLDS} groups")
    found = {name: _cross_fitted(name, x, y, group, seed) for name in ("logistic", "boosting")}
    ranked = {name: Ranking(values, y) for name, values in found.items()}
    best = max(ranked, key=lambda name: ranked[name].auc())
    low, high = _interval(ranked[best], group, rounds, seed)
    families: dict[Family, float] = {}
    for family in get_args(Family):
        columns = [NAMES.index(name) for name in FAMILIES[family]]
        families[family] = Ranking(_cross_fitted(best, x[:, columns], y, group, seed), y).auc()
    return ProbeReport(
        len(y), int((~y).sum()), int(y.sum()), ranked[best].auc(), low, high, best, families, _drivers(x, y)
    )


def probe_views(
    batches: Iterable[Views], groups: Iterable[Sequence[Any]] | None = None, *, seed: int = 0
) -> ProbeReport:
    """The probe on training views, as ``Pool.batch`` gives them.

    Args:
        batches: some thousand views together give an interval of about ±0.02.
        groups: for each batch one value a view, e.g. the item's group; None takes the batches' own ``groups`` where
            they have them. Without, every view stands alone but for pairs, and an item drawn twice is met again: the
            figure then errs upwards, by several hundredths on a small pool.
        seed: of folds, models and bootstrap.

    Raises:
        ValueError: too few views, or groups that do not match.
    """
    rows: list[F64] = []
    labels: list[int] = []
    names: list[Any] = []
    given = None if groups is None else iter(groups)
    for batch in batches:
        first = len(rows)
        rows += [features(view) for view in batch.pixels]
        labels += (np.asarray(batch.labels) > 0).astype(int).tolist()
        own = getattr(batch, "groups", None) if given is None else next(given, ())
        names += _alone(batch, first) if own is None else own
    return fit_probe(rows, labels, names, seed=seed)


def _alone(batch: Views, first: int) -> list[str]:
    """A group a view, counted from `first`; one for a pair."""
    names = [f"view:{first + k}" for k in range(len(batch.labels))]
    for k in np.flatnonzero(batch.paired).tolist():
        names[len(names) // 2 + k] = names[k]
    return names


def _tables(data: bytes) -> list[float]:
    """Quality, mean luminance and chrominance table, subsampling (0 4:4:4, 1 4:2:2, 2 4:2:0); −1 each if no JPEG."""
    with Image.open(io.BytesIO(data)) as image:
        if not isinstance(image, JpegImagePlugin.JpegImageFile):
            return [-1.0, -1.0, -1.0, -1.0]
        tables = [float(np.mean(table)) for _, table in sorted(image.quantization.items())]
        chroma = tables[1] if len(tables) > 1 else tables[0]
        return [jpeg_quality(tables[0] * 64), tables[0], chroma, float(JpegImagePlugin.get_sampling(image))]


def _kind(data: bytes) -> list[float]:
    with Image.open(io.BytesIO(data)) as image:
        found = "JPEG" if image.format == "MPO" else image.format
    return [float(found == name) for name in _FORMATS]


def _cross_fitted(model: str, x: F64, y: npt.NDArray[np.bool_], group: npt.NDArray[np.intp], seed: int) -> F64:
    """Log-odds ``float64 [N]`` of a model that has not seen the row's group."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - slow to import
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.model_selection import StratifiedGroupKFold  # noqa: PLC0415 - GroupKFold with the classes kept even
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    made = np.zeros(len(y))
    if (x == x[:1]).all():  # nothing to see, as it should be of sizes and tables in a training view
        return made
    for train, test in StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed).split(x, y, group):
        if model == "logistic":
            fitted = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
        else:
            fitted = HistGradientBoostingClassifier(
                max_iter=60, max_depth=3, learning_rate=0.1, early_stopping=False, random_state=seed
            )
        made[test] = fitted.fit(x[train], y[train]).decision_function(x[test])
    return made


def _interval(ranking: Ranking, group: npt.NDArray[np.intp], rounds: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    count = int(group.max()) + 1
    values = []
    for _ in range(rounds):
        weights = np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64)
        values.append(ranking.both(weights[group])[0])
    found = interval(values)
    return (math.nan, math.nan) if found is None else (found[0], found[1])


def _drivers(x: F64, y: npt.NDArray[np.bool_]) -> tuple[tuple[str, float], ...]:
    alone = {
        name: Ranking(column, y).auc() for name, column in zip(NAMES, x.T, strict=True) if (column != column[0]).any()
    }
    return tuple(sorted(((name, max(auc, 1 - auc)) for name, auc in alone.items()), key=lambda found: -found[1]))
