"""What every miner has earned so far: windows, rewards and moving scores under one or several profiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detectors.errors import ConfigError
from neurons.live import Standing
from neurons.rewards import NO_ANSWER, PROFILES, Answer, Profile, Tracker
from neurons.scores import Outcome, Scores, summarise
from neurons.simulation import Exchange, Reply

__all__ = ["Ledger", "profiles"]


def profiles(names: Sequence[str]) -> tuple[Profile, ...]:
    """Looks profiles up.

    Raises:
        ConfigError: none, an unknown one, one twice, or profiles of different challenge mixes.
    """
    unknown = [name for name in names if name not in PROFILES]
    if unknown or not names or len(set(names)) != len(names):
        raise ConfigError(f"profiles must be different names out of {', '.join(PROFILES)}, not {list(names)}")
    found = tuple(PROFILES[name] for name in names)
    if len({p.mix for p in found}) > 1:
        raise ConfigError(f"{', '.join(names)} belong to different challenge mixes; simulate them one by one")
    return found


class Ledger:
    """Pays the exchanges of a run, in their order.

    Args:
        names: the miners, in the order of reports.
        chosen: the profiles; the first is the one that is shown.
    """

    def __init__(self, names: Sequence[str], chosen: Sequence[Profile]) -> None:
        self.names = tuple(names)
        self.profiles = tuple(chosen)
        self.exchanges: list[Exchange] = []
        self.rewards: dict[str, dict[str, list[float]]] = {p.name: {n: [] for n in names} for p in chosen}
        self.scores = {p.name: Scores(p) for p in chosen}
        self._trackers = {(p.name, n): Tracker(p) for p in chosen for n in names}

    @property
    def profile(self) -> Profile:
        return self.profiles[0]

    def pay(self, exchange: Exchange) -> None:
        """Takes in one exchange; a miner without a reply in it counts as silent."""
        self.exchanges.append(exchange)
        for profile in self.profiles:
            step = {}
            for name in self.names:
                answer = _answer(profile, exchange.replies[name])
                tracker = self._trackers[profile.name, name]
                step[name] = tracker.step(exchange.modality, answer, exchange.label).total
                self.rewards[profile.name][name].append(step[name])
            self.scores[profile.name].step(step)

    def outcomes(self, name: str) -> list[Outcome]:
        """What the figures of a run are made of."""
        return [
            Outcome(e.modality, e.label, e.replies[name].p_fake, e.issued.item.source, e.issued.level)
            for e in self.exchanges
        ]

    def standing(self, name: str) -> Standing:
        """The figures so far, for people to watch."""
        figures = summarise(self.outcomes(name))
        rewards = self.rewards[self.profile.name][name]
        replies = (e.replies[name] for e in self.exchanges)
        times = [r.seconds * 1e3 for r in replies if r.answer is not None]
        p50, p99 = np.percentile(times, [50, 99]).tolist() if times else (float("nan"),) * 2
        return Standing(
            reward=float(np.mean(rewards)) if rewards else 0.0,
            mcc=figures.mcc,
            accuracy=figures.accuracy or 0.0,
            p50_ms=p50,
            p99_ms=p99,
            answered=figures.answered,
            asked=figures.challenges,
        )


def _answer(profile: Profile, reply: Reply) -> Answer:
    """What the validator of that profile would have read."""
    if reply.answer is None:
        return NO_ANSWER
    return reply.answer if profile.answer == "vector" else reply.p_fake
