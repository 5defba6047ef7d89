"""What every expert says of held-out challenges: the table that merge and calibration are fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detectors.camo import Camo
from detectors.datasets import Item
from detectors.errors import ConfigError
from detectors.evaluation.views import Unusable, Views
from detectors.merge import logit
from detectors.training.recipe import Recipe
from detectors.training.samples import Pool
from detectors.types import Label, Media, Prediction

__all__ = ["MADE", "Sheet", "bare", "score_images", "score_videos"]

MADE = "made:"
"""What the source of a fake made from a real begins with."""

F64 = npt.NDArray[np.float64]
_CHUNK = 32


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """Challenges of one modality, a row each.

    Attributes:
        names: the E experts.
        gates: the G gates.
        logits: ``float64 [N, E]`` of P(fake), calibrated by the cards alone; NaN where an expert did not run.
        fired: ``bool [N, G]``.
        labels: ``int64 [N]``, values of :class:`~detectors.types.Label`.
        semi: ``bool [N]``, whether the answer, if fake, would be semi-synthetic.
        sources, groups: ``str [N]``.
    """

    names: tuple[str, ...]
    gates: tuple[str, ...]
    logits: F64
    fired: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int64]
    semi: npt.NDArray[np.bool_]
    sources: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fake(self) -> npt.NDArray[np.bool_]:
        return self.labels > 0

    def part(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Sheet:
        """The chosen rows."""
        rows = {f.name: getattr(self, f.name)[chosen] for f in fields(self) if f.name not in ("names", "gates")}
        return Sheet(self.names, self.gates, **rows)


def bare(camo: Camo) -> Camo:
    """The same network without the configuration's own calibrations of experts, sharing experts and gates."""
    nothing = {"calibration": None, "video_calibration": None}
    experts = {name: part.model_copy(update=nothing) for name, part in camo.config.experts.items()}
    return camo.configured(camo.config.model_copy(update={"experts": experts, "merge": "learned"}))


def score_images(camo: Camo, items: Sequence[Item], recipe: Recipe, root: Path, *, made: bool) -> Sheet:
    """Views of the image items, and with `made` as many of fakes made from the real ones.

    Args:
        camo: from :func:`bare`.
        items: images and videos; videos are left out.
        recipe: `views` an item, `mix`, `seed`, and the makers' `kinds`.
        root: folder of the data; what a view is depends on the path below it.
        made: whether to make fakes.
    """
    rows = _Rows(camo)
    views = Views(root, level="mix-2.0" if recipe.mix == "2.0" else "mix-2.2", seed=recipe.seed)
    images = [item for item in items if item.modality == "image"]
    pool = Pool(images, recipe) if made and any(not item.fake for item in images) else None
    for number, item in enumerate(images):
        for k in range(recipe.views):
            view = views.view(item, k)
            if isinstance(view, Unusable):
                continue
            rows.add(view.media, item.label, item.source, item.group)
            fake = pool.made_view(item, (recipe.seed + k) * 1_000_003 + number) if pool and not item.fake else None
            if fake is not None:
                rows.add(Media(fake[0]), Label.SYNTHETIC, f"{MADE}{fake[1]}", item.group)
    return rows.sheet("image")


def score_videos(camo: Camo, items: Sequence[Item], recipe: Recipe, root: Path) -> Sheet:
    """Views of the video items: clips as validators cut them; args as :func:`score_images`."""
    rows = _Rows(camo, chunk=1)
    views = Views(root, level="mix-2.0" if recipe.mix == "2.0" else "mix-2.2", seed=recipe.seed)
    for item in items:
        for k in range(recipe.views if item.modality == "video" else 0):
            view = views.view(item, k)
            if not isinstance(view, Unusable):
                rows.add(view.media, item.label, item.source, item.group)
    return rows.sheet("video")


class _Rows:
    """Collects rows; asks the network for a chunk at a time."""

    def __init__(self, camo: Camo, chunk: int = _CHUNK) -> None:
        self._camo, self._chunk = camo, chunk
        self._waiting: list[Media] = []
        self._facts: list[tuple[int, str, str]] = []
        self._answers: list[Prediction] = []

    def add(self, media: Media, label: Label, source: str, group: str) -> None:
        self._waiting.append(media)
        self._facts.append((int(label), source, group))
        if len(self._waiting) >= self._chunk:
            self._ask()

    def _ask(self) -> None:
        self._answers += self._camo.predict(self._waiting)
        self._waiting = []

    def sheet(self, modality: str) -> Sheet:
        """All rows; experts that never ran have no column.

        Raises:
            ConfigError: there is no row.
        """
        self._ask()
        if not self._facts:
            raise ConfigError(f"no usable {modality} among the held-out items")
        names = [n for n in self._camo.config.experts if any(n in a.experts for a in self._answers)]
        gates = tuple(self._camo.config.gates)
        labels, sources, groups = zip(*self._facts, strict=True)
        return Sheet(
            names=tuple(names),
            gates=gates,
            logits=np.array(
                [[logit(a.experts[n]) if n in a.experts else np.nan for n in names] for a in self._answers]
            ),
            fired=np.array([[f"gate:{g}" in a.route for g in gates] for a in self._answers], bool).reshape(
                -1, len(gates)
            ),
            labels=np.array(labels, np.int64),
            semi=np.array([a.probabilities[2] > a.probabilities[1] for a in self._answers], bool),
            sources=np.array(sources, str),
            groups=np.array(groups, str),
        )
