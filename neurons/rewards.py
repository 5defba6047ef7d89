"""How the validators of subnet 34 pay for one answer: five historical reward profiles.

For each miner and modality a validator keeps the last 100 (answer, label) pairs, the unanswered ones among them. At
every challenge it adds the new pair to the window of the challenge's modality and pays

    reward = penalty · ( w_image · quality(image window) + w_video · quality(video window) )

    2.0, 2.0.1, 2.1   quality = ½ · max(0, MCC over the last 100) + ½ · accuracy over the last 10
    2.2.0             quality = 0.9 · MCC of real against fake + 0.1 · MCC of the three classes, last 100
    2.2.7             quality = 0.75 · the one + 0.25 · the other

The penalty is 0 where the *current* answer is no probability (so silence, −1, costs the whole step) and 1 otherwise.
MCC is Matthews' correlation coefficient, for three classes as Gorodkin (2004) generalised it.

What follows from these rules and surprises at first:

- A modality that has not been answered yet has quality 0, and its weight is lost: whoever is only ever sent images
  earns at most 0.6 under ``sn34-2.1``.
- Under 2.0 to 2.1 a window whose answered labels are all alike has MCC 0, so a perfect miner starts at half pay.
- Under 2.2 quality has no floor: a miner that is worse than chance earns less than nothing.
- Answers of −1 take places in a window. Ten in a row leave no accuracy over the last ten, hence 0.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np

from detectors.augment import Mix
from detectors.types import Label, Modality

__all__ = ["NO_ANSWER", "PROFILES", "Answer", "Metrics", "Profile", "Reward", "Tracker", "penalty", "reward", "vector"]

Answer = float | Sequence[float]
"""What came back: P(fake), or (real, synthetic) or (real, synthetic, semi-synthetic)."""

NO_ANSWER = -1.0

_MODALITIES: tuple[Modality, ...] = ("image", "video")
_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Profile:
    """One version of the validators' reward.

    Attributes:
        name: e.g. ``sn34-2.0``.
        image, video: weights of the two modalities; they sum to 1.
        answer: ``float`` judges P(fake) by ``numpy.round``, so that exactly 0.5 is real; ``vector`` takes the class
            with the highest probability, the first among equals.
        mcc: weight of real against fake MCC over `window`, floored at 0 for ``float`` answers only.
        mcc3: weight of the three-class MCC over `window`.
        accuracy: weight of the accuracy over the last `recent`.
        window: pairs kept per miner and modality.
        recent: pairs that the accuracy looks at.
        mix: which validators' challenges belong to it (see ``detectors.augment.LEVELS``).
        unchallenged_zero: whether a miner that was not challenged in a step is scored 0 for it.
    """

    name: str
    image: float
    video: float
    answer: Literal["float", "vector"]
    mcc: float
    mcc3: float = 0.0
    accuracy: float = 0.0
    window: int = 100
    recent: int = 10
    mix: Mix = "2.0"
    unchallenged_zero: bool = False

    def weight(self, modality: Modality) -> float:
        return self.image if modality == "image" else self.video


def _named(*profiles: Profile) -> Mapping[str, Profile]:
    return MappingProxyType({profile.name: profile for profile in profiles})


PROFILES = _named(
    Profile("sn34-2.0", 0.95, 0.05, "float", mcc=0.5, accuracy=0.5, unchallenged_zero=True),
    Profile("sn34-2.0.1", 0.9, 0.1, "float", mcc=0.5, accuracy=0.5, unchallenged_zero=True),
    Profile("sn34-2.1", 0.6, 0.4, "float", mcc=0.5, accuracy=0.5),
    Profile("sn34-2.2.0", 0.6, 0.4, "vector", mcc=0.9, mcc3=0.1, mix="2.2"),
    Profile("sn34-2.2.7", 0.6, 0.4, "vector", mcc=0.75, mcc3=0.25, mix="2.2"),
)
"""The profiles by name."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """What one window says.

    Attributes:
        mcc: real against fake over the whole window; in [0, 1] under ``float`` profiles, else in [-1, 1].
        mcc3: three classes over the whole window, in [-1, 1]; 0 under ``float`` profiles.
        accuracy: over the last ten, in [0, 1]; 0 under ``vector`` profiles.
        answered: pairs in the window that carry an answer.
        pairs: pairs in the window, at most ``Profile.window``.
    """

    mcc: float = 0.0
    mcc3: float = 0.0
    accuracy: float = 0.0
    answered: int = 0
    pairs: int = 0

    def quality(self, profile: Profile) -> float:
        """The weighted sum that `profile` pays for this modality before penalty and modality weight."""
        return profile.mcc * self.mcc + profile.mcc3 * self.mcc3 + profile.accuracy * self.accuracy


@dataclass(frozen=True, slots=True)
class Reward:
    """What a miner gets for one step.

    Attributes:
        total: what enters the score; in [0, 1] under ``float`` profiles, in [-1, 1] under ``vector`` profiles.
        penalty: 0.0 or 1.0, already in `total`.
        metrics: of both modalities, after this step's answer.
    """

    total: float
    penalty: float
    metrics: Mapping[Modality, Metrics]


@dataclass(slots=True)
class Tracker:
    """The windows of one miner (one uid).

    Attributes:
        profile: whose rules apply.
        hotkey: whom the windows belong to; another hot key behind the same uid starts from nothing.
    """

    profile: Profile
    hotkey: str | None = None
    _windows: dict[Modality, deque[tuple[int | None, int]]] = field(default_factory=dict, repr=False)
    _metrics: dict[Modality, Metrics] = field(default_factory=dict, repr=False)

    def step(self, modality: Modality, answer: Answer, label: Label, hotkey: str = "") -> Reward:
        """Records one answer and pays for it.

        Args:
            modality: of the challenge.
            answer: what came back, :data:`NO_ANSWER` where nothing did.
            label: the truth. Under ``float`` profiles both kinds of fake are the same class.
            hotkey: of the miner that answers now.
        """
        self.update(modality, answer, label, hotkey)
        return reward(self.profile, {m: self.metrics(m) for m in _MODALITIES}, penalty(self.profile, answer))

    def update(self, modality: Modality, answer: Answer, label: Label, hotkey: str = "") -> None:
        """Records one answer. The windows of *both* modalities are forgotten when the hot key has changed."""
        if hotkey != self.hotkey:
            self._windows.clear()
            self._metrics.clear()
            self.hotkey = hotkey
        window = self._windows.setdefault(modality, deque(maxlen=self.profile.window))
        truth = int(label) if self.profile.answer == "vector" else int(label is not Label.REAL)
        window.append((_class(self.profile, answer), truth))
        self._metrics.pop(modality, None)

    def metrics(self, modality: Modality) -> Metrics:
        """What the window of `modality` says now; all 0 while it holds no answer."""
        if modality not in self._metrics:
            self._metrics[modality] = _metrics(self.profile, self._windows.get(modality, ()))
        return self._metrics[modality]


def reward(profile: Profile, metrics: Mapping[Modality, Metrics], penalty: float) -> Reward:
    """Puts the qualities of both modalities together."""
    total = penalty * math.fsum(profile.weight(m) * metrics[m].quality(profile) for m in _MODALITIES)
    return Reward(total=total, penalty=penalty, metrics=MappingProxyType(dict(metrics)))


def penalty(profile: Profile, answer: Answer) -> float:
    """1.0 for an answer that is a probability by the profile's rule, else 0.0.

    ``float`` profiles ask for a number in [0, 1]. ``vector`` profiles ask for three numbers in [0, 1] that sum to 1
    within 1e-6, where a number p stands for (1 − p, p, 0) and two numbers lack a 0. NaN is never a probability.
    """
    if profile.answer == "float":
        return float(not isinstance(answer, Sequence) and 0.0 <= answer <= 1.0)
    three = vector(answer)
    if three is None:
        return 0.0
    within = all(0.0 <= p <= 1.0 for p in three)
    return float(within and abs(math.fsum(three) - 1.0) < _SUM_TOLERANCE)


def vector(answer: Answer) -> tuple[float, float, float] | None:
    """(real, synthetic, semi-synthetic) of an answer; None for silence (−1, alone or in every place) and for lengths
    other than 2 and 3."""
    if not isinstance(answer, Sequence):
        return None if answer == NO_ANSWER else (1.0 - float(answer), float(answer), 0.0)
    values = [float(v) for v in answer]
    if len(values) not in (2, 3) or all(v == NO_ANSWER for v in values):
        return None
    return values[0], values[1], values[2] if len(values) == 3 else 0.0


def _class(profile: Profile, answer: Answer) -> int | None:
    """The class an answer stands for; None where there is none and the pair is skipped.

    A number that rounds to neither 0 nor 1, or is not finite, becomes class −2: it never matches a label.
    """
    if profile.answer == "float":
        if isinstance(answer, Sequence) or answer == NO_ANSWER:
            return None  # a list does not fit the field of these validators' synapse: it never reached them
        rounded = float(np.round(answer))
        return int(rounded) if rounded in (0.0, 1.0) else _NO_CLASS
    three = vector(answer)
    if three is None:
        return None
    return int(np.argmax(three)) if all(math.isfinite(v) for v in three) else _NO_CLASS


_NO_CLASS = -2


def _metrics(profile: Profile, window: Iterable[tuple[int | None, int]]) -> Metrics:
    pairs = list(window)
    answered = [(said, truth) for said, truth in pairs if said is not None]
    if not answered:
        return Metrics(pairs=len(pairs))
    counted = Metrics(answered=len(answered), pairs=len(pairs))
    if any(said == _NO_CLASS for said, _ in answered):
        return counted  # the validators' metrics fail on such a window and count as 0 until the answer has left it
    binary = _mcc([(int(said > 0), int(truth > 0)) for said, truth in answered])
    if profile.answer == "vector":
        return Metrics(binary, _mcc(answered), 0.0, counted.answered, counted.pairs)
    recent = [(said, truth) for said, truth in pairs[-profile.recent :] if said is not None]
    accuracy = sum(said == truth for said, truth in recent) / len(recent) if recent else 0.0
    return Metrics(max(0.0, binary), 0.0, accuracy, counted.answered, counted.pairs)


def _mcc(pairs: Sequence[tuple[int, int]]) -> float:
    """Matthews' correlation of (said, true) classes, 0 where either side has a single value (Gorodkin 2004, eq. 8)."""
    total = len(pairs)
    said, true = (np.bincount(column, minlength=3).tolist() for column in zip(*pairs, strict=True))
    hits = sum(s == t for s, t in pairs)
    covariance = hits * total - sum(s * t for s, t in zip(said, true, strict=True))
    spread = (total**2 - sum(s * s for s in said)) * (total**2 - sum(t * t for t in true))
    return covariance / math.sqrt(spread) if spread else 0.0
