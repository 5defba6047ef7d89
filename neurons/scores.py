"""From rewards to what a miner is paid: the moving score, the weights, and the summary a report shows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from detectors.types import Label, Modality
from neurons.rewards import Answer, Profile, vector

__all__ = ["ALPHA", "Outcome", "Scores", "Summary", "breakdown", "summarise"]

ALPHA = 0.02  # share of a new reward in the moving score


@dataclass(slots=True)
class Scores:
    """The moving scores of all miners of a validator: V ← (1 − α)·V + α·reward.

    Attributes:
        profile: decides what happens to miners that a step leaves out: ``unchallenged_zero`` scores them 0 for it
            (validator 2.0), otherwise they keep their score.
        alpha: in (0, 1].
        values: score by miner; every miner starts at 0.
    """

    profile: Profile
    alpha: float = ALPHA
    values: dict[str, float] = field(default_factory=dict)

    def step(self, rewards: Mapping[str, float]) -> None:
        """Takes in the rewards of one step; a reward that is not a number counts as 0, as on chain."""
        for miner in rewards:
            self.values.setdefault(miner, 0.0)
        for miner, value in self.values.items():
            if miner not in rewards and not self.profile.unchallenged_zero:
                continue
            given = rewards.get(miner, 0.0)
            self.values[miner] = (1 - self.alpha) * value + self.alpha * (given if math.isfinite(given) else 0.0)

    def weights(self) -> dict[str, float]:
        """The scores divided by the sum of their absolute values; all 0 while there is none."""
        norm = math.fsum(abs(v) for v in self.values.values())
        return {miner: v / norm if norm else 0.0 for miner, v in self.values.items()}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One challenge and what a miner made of it.

    Attributes:
        modality, label: of the challenge.
        answer: what came back, −1 where nothing did.
        source: collection the challenge was drawn from.
        level: augmentation level, 0 to 3.
    """

    modality: Modality
    label: Label
    answer: Answer
    source: str = ""
    level: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures over a set of outcomes. Silence is counted in `challenges` and enters no other figure.

    Attributes:
        challenges: how many there were.
        answered: how many of them got a usable answer.
        mcc: real against fake, in [-1, 1]; 0 where all labels or all answers are alike.
        mcc3: of the three classes by the highest probability, in [-1, 1]; 0 where all labels or answers are alike.
        accuracy: real against fake, in [0, 1]; None without answers. P(fake) of exactly 0.5 is real.
        auc: area under the ROC curve of P(fake); None unless both classes were answered.
        brier: mean squared error of P(fake), 0 is best, 0.25 is what 0.5 always gets; None without answers.
    """

    challenges: int
    answered: int
    mcc: float
    mcc3: float
    accuracy: float | None
    auc: float | None
    brier: float | None


def summarise(outcomes: Iterable[Outcome]) -> Summary:
    """The figures over all outcomes of a run (not a window), as a report shows them.

    An answer counts as usable where its P(fake), 1 − P(real), is in [0, 1].
    """
    from sklearn.metrics import accuracy_score, brier_score_loss, roc_auc_score  # noqa: PLC0415 - see _mcc

    every = list(outcomes)
    usable = [(p, o) for o in every if (p := _p_fake(o.answer)) is not None]
    if not usable:
        return Summary(len(every), 0, 0.0, 0.0, None, None, None)
    p_fake = np.array([p for p, _ in usable])
    classes = np.array([int(o.label) for _, o in usable])
    truth, said = (classes > 0).astype(int), np.round(p_fake).astype(int)
    likeliest = np.array([int(np.argmax(vector(o.answer) or ())) for _, o in usable])
    both = len(np.unique(truth)) == 2
    return Summary(
        challenges=len(every),
        answered=len(usable),
        mcc=_mcc(truth, said),
        mcc3=_mcc(classes, likeliest),
        accuracy=float(accuracy_score(truth, said)),
        auc=float(roc_auc_score(truth, p_fake)) if both else None,
        brier=float(brier_score_loss(truth, p_fake, pos_label=1)),
    )


def breakdown(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Summary]]:
    """:func:`summarise` by ``modality``, ``label``, ``source`` and ``level``, each by its values in order."""
    parts: dict[str, dict[str, list[Outcome]]] = {
        k: defaultdict(list) for k in ("modality", "label", "source", "level")
    }
    for o in outcomes:
        parts["modality"][o.modality].append(o)
        parts["label"][o.label.name.lower()].append(o)
        parts["source"][o.source].append(o)
        parts["level"][str(o.level)].append(o)
    return {by: {value: summarise(found) for value, found in sorted(groups.items())} for by, groups in parts.items()}


def _mcc(truth: npt.NDArray[np.int_], said: npt.NDArray[np.int_]) -> float:
    from sklearn.metrics import matthews_corrcoef  # noqa: PLC0415 - a second and 80 MB that a miner's start goes without

    return float(matthews_corrcoef(truth, said)) if len(np.unique(truth)) > 1 and len(np.unique(said)) > 1 else 0.0


def _p_fake(answer: Answer) -> float | None:
    three = vector(answer)
    if three is None:
        return None
    p_fake = 1.0 - three[0] if isinstance(answer, Sequence) else float(answer)
    return p_fake if 0.0 <= p_fake <= 1.0 else None
