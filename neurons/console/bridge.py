"""What the console is given of the miner: everything it shows and does goes through one :class:`Ops`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from detectors.types import U8, Detector, Media, Prediction
from neurons.operations import Health, Reloads, Shadows
from neurons.recent import Recent

__all__ = ["Explain", "Explained", "Explainer", "Ops"]

F32 = npt.NDArray[np.float32]


class Explained(Protocol):
    """What in a media spoke for fake; :class:`detectors.heatmap.HeatMap` is one."""

    @property
    def maps(self) -> F32:
        """``float32 [T, h, w]`` in [0, 1], larger where a frame speaks for fake; T = 1 for an image."""
        ...

    @property
    def frames(self) -> Sequence[int]:
        """T indices of the media's frames."""
        ...

    @property
    def scores(self) -> Sequence[float]:
        """T times P(fake) of a frame."""
        ...

    @property
    def left_out(self) -> Mapping[str, str]:
        """Why an expert has no part in it, by name."""
        ...

    @property
    def prediction(self) -> Prediction:
        """The answer that is explained."""
        ...


class Explain(Protocol):
    """Computes a heat map; :func:`detectors.heatmap.heat_map` does."""

    def __call__(
        self,
        detector: Detector,
        media: Media,
        *,
        size: tuple[int, int] | None = None,
        prediction: Prediction | None = None,
    ) -> Explained:
        """Maps of the height and width `size`, of what `prediction` says."""
        ...


@dataclass(frozen=True, slots=True)
class Explainer:
    """How heat maps are made and drawn.

    Attributes:
        explain: computes one.
        overlay: lays a map ``[h, w]`` over a picture ``uint8 [H, W, 3]``; :func:`detectors.overlay.overlay`.
        strip: sets frames ``uint8 [T, H, W, 3]`` with their maps ``[T, h, w]`` and P(fake) side by side as one picture;
            :func:`detectors.overlay.strip`.
    """

    explain: Explain
    overlay: Callable[[U8, F32], U8]
    strip: Callable[[U8, F32, Sequence[float]], U8]


@dataclass(frozen=True, slots=True)
class Ops:
    """The miner, as its operator sees it.

    Attributes:
        recent: what it remembers of the last challenges.
        detector: the live one; must be safe to call from a thread of the console's.
        store: folder of its weights.
        health: how it is; called from any thread.
        reloads: its swaps; None where it does not follow its store.
        shadows: its shadow; None where it has none.
        explainer: heat maps; None where there are none.
        facts: settings to show, by name; nothing secret.
        max_upload_bytes: of a file to analyse.
    """

    recent: Recent
    detector: Detector
    store: Path
    health: Callable[[], Health]
    reloads: Reloads | None = None
    shadows: Shadows | None = None
    explainer: Explainer | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    max_upload_bytes: int = 32 << 20
