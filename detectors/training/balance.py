"""The seeds' balancing: which items an epoch shows, and in what order.

An epoch is a fixed number of draws, half of them real and half fake. Within a class every source has its share of the
draws, equal unless weighted; a source of n items below a floor has n / floor of a share, so that tiny ones are not
drilled. Inside a source items come in random order, none again before all have been shown.

The order is a pure function of (items, seed, step): nothing needs to be saved to go on in the middle of an epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.datasets import Item
from detectors.training.sources import share_of

__all__ = ["BATCH", "EPOCH", "FLOOR", "Plan"]

EPOCH: Final = 25_600  # draws
BATCH: Final = 256
FLOOR: Final = 16  # items below which a source is drawn less often

_Indices = npt.NDArray[np.int64]


class Plan:
    """The order of draws over a list of items.

    Args:
        items: of both classes; a draw is an index into them.
        batch: draws a step, even.
        epoch: draws an epoch, a multiple of `batch`.
        seed: any non-negative integer.
        weights: of sources, relative to the others of their class; 1 where none is given, 0 leaves a source out.
        floor: sources of n items below it have n / floor of their weight.

    Raises:
        ValueError: batch or epoch does not fit, a weight is negative or names no source, or a class is
            missing.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        batch: int = BATCH,
        epoch: int = EPOCH,
        seed: int = 0,
        weights: Mapping[str, float] | None = None,
        floor: int = FLOOR,
    ) -> None:
        if batch < 2 or batch % 2:
            raise ValueError(f"batch must be even and positive, not {batch}")
        if epoch < batch or epoch % batch:
            raise ValueError(f"epoch must be a multiple of the batch of {batch}, not {epoch}")
        if floor < 1:
            raise ValueError(f"floor must be positive, not {floor}")
        weights = weights or {}
        if unknown := sorted(set(weights) - {item.source for item in items}):
            raise ValueError(f"weights name sources that no item has: {', '.join(unknown)}")
        self.batch = batch
        self.epoch = epoch
        self.steps_per_epoch = epoch // batch
        self._seed = seed
        self._classes = [_members(items, fake=fake) for fake in (False, True)]
        self._quotas = [_quotas(members, weights, floor, epoch // 2) for members in self._classes]
        self._made: tuple[int, list[_Indices]] | None = None

    def quotas(self) -> dict[bool, dict[str, int]]:
        """Draws of each source in one epoch, by class (False real, True fake)."""
        return {
            fake: dict(zip(members, quota.tolist(), strict=True))
            for fake, members, quota in zip((False, True), self._classes, self._quotas, strict=True)
        }

    def draw(self, step: int) -> list[int]:
        """Indices of one step's items, the first half real, the second fake.

        Raises:
            ValueError: the step is negative.
        """
        if step < 0:
            raise ValueError(f"step must not be negative, not {step}")
        epoch, place = divmod(step, self.steps_per_epoch)
        made = self._made
        if made is None or made[0] != epoch:
            made = (epoch, [self._order(fake, epoch) for fake in (False, True)])
            self._made = made  # one assignment: threads may race to it, with equal values
        half = self.batch // 2
        reals, fakes = (order[place * half : (place + 1) * half].tolist() for order in made[1])
        return [*reals, *fakes]

    def _order(self, fake: bool, epoch: int) -> _Indices:
        """One class's draws of one epoch, ``int64 [epoch / 2]``."""
        rng = np.random.default_rng([self._seed, epoch, int(fake)])
        parts = []
        for members, quota in zip(self._classes[fake].values(), self._quotas[fake].tolist(), strict=True):
            rounds = -(-quota // len(members))
            drawn = [rng.permutation(members) for _ in range(rounds)]
            parts.append(np.concatenate([np.empty(0, np.int64), *drawn])[:quota])
        turns = rng.permutation(np.repeat(np.arange(len(parts)), [len(part) for part in parts]))
        order = np.empty(len(turns), np.int64)
        for number, part in enumerate(parts):
            order[turns == number] = part
        return order


def _members(items: Sequence[Item], *, fake: bool) -> dict[str, _Indices]:
    found: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        if item.fake == fake:
            found.setdefault(item.source, []).append(index)
    if not found:
        raise ValueError(f"there is no {'fake' if fake else 'real'} item to draw")
    return {name: np.array(found[name], np.int64) for name in sorted(found)}


def _quotas(members: Mapping[str, _Indices], weights: Mapping[str, float], floor: int, draws: int) -> _Indices:
    """Whole numbers that sum to `draws`, in proportion to the shares (largest remainders get what rounding leaves)."""
    shares = np.array([share_of(len(who), weights.get(name, 1.0), floor) for name, who in members.items()])
    if (shares < 0).any() or not np.isfinite(shares).all() or not shares.sum() > 0:
        raise ValueError(f"weights of {', '.join(members)} must be at least 0, and not all of them 0")
    exact = shares / shares.sum() * draws
    quotas: _Indices = np.floor(exact).astype(np.int64)
    left = draws - int(quotas.sum())
    quotas[np.argsort(quotas - exact, kind="stable")[:left]] += 1
    return quotas
