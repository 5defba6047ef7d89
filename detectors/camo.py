"""CAMO, the content-aware gating network: gates look, experts judge, the merge decides.

After "Content-Aware Model Orchestration" of BitMind's subnet (1.2.9 to 2.2.11), whose merge ``merge: max`` reproduces;
the default merges calibrated logits with learned weights over every expert that ran. An expert that would be late is
left out rather than the answer (silence costs more than an unsure number), and one that computes no finite number is
left out too; the route tells of both.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from detectors import merge
from detectors.camo_config import GENERAL, CamoConfig
from detectors.card import Card
from detectors.costs import Costs
from detectors.errors import ConfigError, PredictionError
from detectors.gates.base import Gate, Gated
from detectors.sampling import middle_indices
from detectors.types import U8, Media, Prediction

__all__ = ["Camo", "Expert", "load"]

_GATE_BUDGET_MS = 15.0  # a look at 256 px, until measured


class Expert(Protocol):
    """What CAMO asks of an expert; :class:`detectors.experts.base.NeuralDetector` is one."""

    @property
    def card(self) -> Card: ...

    def logits(self, images: Sequence[U8]) -> npt.NDArray[np.float64]:
        """Calibrated logits ``[N]`` of P(fake) of single RGB images ``uint8 [H, W, 3]``."""
        ...

    def opinions(self, images: Sequence[U8]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Logits ``[N]`` and semi-synthetic shares ``[N]``; asked where the card has a `semi_index` only."""
        ...

    def predict(self, batch: Sequence[Media], *, deadline: float | None = None) -> list[Prediction]:
        """Judges whole media; asked of clip networks (``card.frames > 1``) only."""
        ...


@dataclass(slots=True)
class _Case:
    """One media on its way through."""

    media: Media
    frames: list[U8]
    views: dict[str, list[U8]] = field(default_factory=dict)  # by fired gate
    logits: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)  # semi-synthetic, of experts that tell
    late: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    fewer: int = 0  # frames that were all there was time for
    stages: dict[str, float] = field(default_factory=dict)  # milliseconds of the batch


class Camo:
    """The gating network as a :class:`~detectors.types.Detector`. Safe to call from several threads.

    Args:
        config: who sees what, and how much they count.
        experts: by the names in the config.
        gates: by the names in the config.

    Raises:
        ConfigError: an expert or gate of the config is not given, or no expert judges every image.
    """

    def __init__(self, config: CamoConfig, experts: Mapping[str, Expert], gates: Mapping[str, Gate]) -> None:
        missing = sorted((set(config.experts) - set(experts)) | (set(config.gates) - set(gates)))
        if missing:
            raise ConfigError(f"not given: {', '.join(missing)}")
        self.config = config
        self._experts = {name: experts[name] for name in config.experts}
        self._gates = {name: gates[name] for name in config.gates}
        self._gate_lock = threading.Lock()
        self._faults: Counter[str] = Counter()
        budgets = {name: part.budget_ms for name, part in config.experts.items()}
        budgets |= {f"gate:{name}": _GATE_BUDGET_MS for name in config.gates}
        self._costs = Costs(budgets, config.deadline.smoothing)
        if not any(not config.experts[name].needs for name in self._for("image")):
            raise ConfigError("no image expert with `content: general` and `gate: null`; a clip network judges videos")
        keys = {name: expert.card.key for name, expert in self._experts.items()}
        looking = {name: getattr(gate, "weights", "") for name, gate in self._gates.items()}  # empty: a gate of code
        versions = [*sorted(keys.items()), *((f"gate:{name}", key) for name, key in sorted(looking.items()) if key)]
        digest = hashlib.sha256((config.model_dump_json() + repr(versions)).encode()).hexdigest()
        options = {"merge": config.merge, "experts": keys, "gates": looking}
        self._card = Card(name="camo", version=digest[:12], architecture="camo", options=options)

    @property
    def card(self) -> Card:
        """Version = the first 12 hex digits of the sha256 over configuration and weights' versions."""
        return self._card

    @property
    def faults(self) -> dict[str, int]:
        """How often each expert computed no finite number, since construction."""
        return dict(self._faults)

    @property
    def costs(self) -> dict[str, float]:
        """Milliseconds an item, by expert and ``gate:NAME``: measured, or budgeted where nothing was yet."""
        return self._costs.snapshot()

    @property
    def experts(self) -> Mapping[str, Expert]:
        """By the names in the config."""
        return MappingProxyType(self._experts)

    def configured(self, config: CamoConfig) -> Camo:
        """The same experts and gates under another configuration of the same names."""
        return Camo(config, self._experts, self._gates)

    def warm_up(self, side: int = 256) -> dict[str, float]:
        """Runs every gate and expert twice on a picture of noise and measures the second time; returns `costs`."""
        image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        for measured in (False, True):
            for name in self._experts:
                clip = Media(np.stack([image] * self._experts[name].card.frames))
                case = _Case(clip, [image], {gate: [image] for gate in self._gates})
                self._run(name, [case], measured=measured)
            for name in self._gates:
                self._look_with(name, [_Case(Media(image), [image])], measured=measured)
        return self.costs

    def predict(self, batch: Sequence[Media], *, deadline: float | None = None) -> list[Prediction]:
        """See :class:`~detectors.types.Detector`.

        Raises:
            PredictionError: for one of the media no expert computed a finite number.
        """
        started = time.perf_counter()
        end = None if deadline is None else deadline - self.config.deadline.margin_ms / 1e3
        cases = [_Case(media, self._frames(media)) for media in batch]
        self._look(cases, end)
        self._ask(cases, end)
        for case in cases:
            if not case.logits:
                self._rescue(case, end)
        merging = time.perf_counter()
        answers = [self._answer(case, (merging - started) * 1e3) for case in cases]
        _spend(cases, "merge", time.perf_counter() - merging)
        return answers

    # Who sees what

    def looked_at(self, media: Media) -> list[int]:
        """Indices of the frames that gates and image experts are shown."""
        return middle_indices(len(media.frames), self.config.video.frames)

    def _frames(self, media: Media) -> list[U8]:
        return [media.frames[i] for i in self.looked_at(media)]

    def _for(self, modality: str) -> list[str]:
        """The experts of a modality, in the config's order."""
        return [
            name
            for name, part in self.config.experts.items()
            if part.media in (modality, "both") and (modality == "video" or not self._is_clip(name))
        ]

    def _is_clip(self, name: str) -> bool:
        return self._experts[name].card.frames > 1

    def _chosen(self, case: _Case, rule: merge.Rule | None = None) -> tuple[str, ...]:
        needs = {name: self.config.experts[name].needs for name in self._for(case.media.modality)}
        return merge.selected(rule or self.config.merge, needs, case.views)

    def _views(self, name: str, case: _Case) -> list[U8]:
        gate = self.config.experts[name].gate
        return case.frames if gate is None else case.views[gate]

    def _items(self, name: str, case: _Case) -> int:
        return 1 if self._is_clip(name) else len(self._views(name, case))

    # Gates

    def _look(self, cases: Sequence[_Case], end: float | None) -> None:
        """Lets every gate look at every case, unless that would leave no time for the quickest general expert."""
        if not cases:
            return
        general = (name for name, part in self.config.experts.items() if not part.needs and not self._is_clip(name))
        images = sum(len(case.frames) for case in cases)
        reserve = min(self._costs.milliseconds(name, images) for name in general)
        for name in self._gates:
            if self._is_late(self._costs.milliseconds(f"gate:{name}", images) + reserve, end):
                self._leave_out(f"gate:{name}", cases)
            else:
                self._look_with(name, cases)

    def _look_with(self, name: str, cases: Sequence[_Case], *, measured: bool = True) -> None:
        with self._gate_lock:  # a gate is called from one thread at a time
            started = time.perf_counter()
            for case in cases:
                if found := self._found(name, case.frames):
                    case.views[name] = [gated.pixels for gated in found.values()]
            elapsed = time.perf_counter() - started
        _spend(cases, f"gate:{name}", elapsed)
        if measured:
            self._costs.record(f"gate:{name}", sum(len(self._picked(case.frames)) for case in cases), elapsed)

    def _picked(self, frames: Sequence[U8]) -> list[int]:
        most = self.config.video.gate_frames
        return middle_indices(len(frames), len(frames) if most is None else most)

    def _found(self, name: str, frames: Sequence[U8]) -> dict[int, Gated]:
        picked, gate = self._picked(frames), self._gates[name]
        found = {i: gated for i in picked if (gated := gate(frames[i])) is not None}
        return found if len(found) >= self.config.video.gate_share * len(picked) else {}

    def found(self, name: str, media: Media) -> dict[int, Gated]:
        """What a gate finds in a media, by index of the frame; empty where it does not count as fired."""
        with self._gate_lock:
            found = self._found(name, self._frames(media))
        return {self.looked_at(media)[i]: gated for i, gated in found.items()}

    # Experts

    def _ask(self, cases: Sequence[_Case], end: float | None) -> None:
        """Runs each chosen expert once over all its cases; under a deadline the most weight a millisecond first."""
        jobs: dict[str, list[_Case]] = {name: [] for name in self._experts}
        for case in cases:
            for name in self._chosen(case):
                jobs[name].append(case)
        order = [name for name, asked in jobs.items() if asked]
        if end is not None:
            order.sort(key=lambda name: -self._worth(name, jobs[name]))
        for name in order:
            if self._is_late(self._estimate(name, jobs[name]), end):
                self._leave_out(name, jobs[name])
            else:
                self._run(name, jobs[name])

    def _worth(self, name: str, cases: Sequence[_Case]) -> float:
        weight = sum(self.config.experts[name].weight_in(case.media.modality) for case in cases)
        return weight / max(self._estimate(name, cases), 1e-6)

    def _estimate(self, name: str, cases: Sequence[_Case]) -> float:
        return self._costs.milliseconds(name, sum(self._items(name, case) for case in cases))

    def _is_late(self, milliseconds: float, end: float | None) -> bool:
        return end is not None and time.monotonic() + milliseconds / 1e3 > end

    def _leave_out(self, name: str, cases: Sequence[_Case]) -> None:
        self._costs.left_out(name)
        for case in cases:
            case.late.append(name)

    def _run(self, name: str, cases: Sequence[_Case], *, measured: bool = True) -> None:
        """Adds an expert's logit to each case, or names it broken there. A bad case spoils no other."""
        started = time.perf_counter()
        values = self._values(name, cases)
        elapsed = time.perf_counter() - started
        _spend(cases, name, elapsed)
        if measured:
            self._costs.record(name, sum(self._items(name, case) for case in cases), elapsed)
        for case, value in zip(cases, values, strict=True):
            single = value if value is not None or len(cases) == 1 else self._values(name, [case])[0]
            if single is None:
                self._faults[name] += 1
                case.broken.append(name)
            else:
                logit, share = single
                case.logits[name] = self.config.experts[name].calibrated(logit, case.media.modality)
                if share is not None:
                    case.shares[name] = share

    def _values(self, name: str, cases: Sequence[_Case]) -> list[tuple[float, float | None] | None]:
        """A logit and a semi-synthetic share per case, means over its views; None where that is not a number.

        The share is None where the expert's head does not tell the two kinds of fake apart.
        """
        expert = self._experts[name]
        try:
            if self._is_clip(name):
                answers = expert.predict([case.media for case in cases])
                return [(merge.logit(answer.p_fake), None) for answer in answers]
            counts = [len(self._views(name, case)) for case in cases]
            flat = [view for case in cases for view in self._views(name, case)]
            shares = None
            if expert.card.semi_index is None:
                logits = np.asarray(expert.logits(flat), np.float64)
            else:
                logits, shares = expert.opinions(flat)
            if logits.shape != (len(flat),):
                raise PredictionError(f"{name}: {logits.shape} logits of {len(flat)} images")
        except PredictionError:
            return [None] * len(cases)
        cuts = np.cumsum(counts)[:-1]
        means = [float(part.mean()) for part in np.split(logits, cuts)]
        parts = [None] * len(cases) if shares is None else [float(part.mean()) for part in np.split(shares, cuts)]
        return [(mean, share) if np.isfinite(mean) else None for mean, share in zip(means, parts, strict=True)]

    def _rescue(self, case: _Case, end: float | None) -> None:
        """Gets a number for a case that has none: the quickest expert, on as many frames as there is time for."""
        chosen = self._chosen(case)
        spare = [name for name in self._chosen(case, "learned") if name not in chosen]
        for names in (chosen, spare):
            for name in sorted(names, key=lambda name: self._estimate(name, [case])):
                if name in case.broken:
                    continue
                attempt, fewer = self._shortened(name, case, end)
                self._run(name, [attempt])
                if name in attempt.logits:
                    case.logits[name], case.fewer = attempt.logits[name], fewer
                    case.shares.update(attempt.shares)
                    case.late = [other for other in case.late if other != name]
                    return
                if name not in case.broken:
                    case.broken.append(name)
        raise PredictionError(f"no expert computed a finite number (broken: {', '.join(case.broken)})")

    def _shortened(self, name: str, case: _Case, end: float | None) -> tuple[_Case, int]:
        """The case with no more views than there is time for, and their number; (the case, 0) where all fit."""
        items = self._items(name, case)
        if items == 1 or not self._is_late(self._estimate(name, [case]), end):
            return case, 0
        left = (0.0 if end is None else end - time.monotonic()) * 1e3
        count = min(items - 1, max(1, int(left / self._costs.milliseconds(name))))
        frames = [case.frames[i] for i in middle_indices(len(case.frames), count)]
        views = {gate: [found[i] for i in middle_indices(len(found), count)] for gate, found in case.views.items()}
        return dataclasses.replace(case, frames=frames, views=views, logits={}, shares={}, broken=[]), count

    # The answer

    def _answer(self, case: _Case, milliseconds: float) -> Prediction:
        names = [name for name in self._experts if name in case.logits]
        logits = {name: case.logits[name] for name in names}
        experts = {name: merge.sigmoid(value) for name, value in logits.items()}
        if self.config.merge == "max":
            p_fake = merge.maximum(experts)
        else:
            modality = case.media.modality
            weights = {name: self.config.experts[name].weight_in(modality) for name in names}
            curve, spread = self.config.curve(modality, case.views), self.config.spread(modality)
            p_fake = merge.learned(logits, weights, curve, spread=spread)
        share = merge.leading_share(p_fake, self._semisynthetic(case))
        return Prediction(
            probabilities=Prediction.split(p_fake, share),
            route=(
                *(f"gate:{name}" for name in case.views),
                *names,
                *((f"frames:{case.fewer}",) if case.fewer else ()),
                *(f"late:{name}" for name in case.late),
                *(f"broken:{name}" for name in case.broken),
                f"merge:{self.config.merge}",
            ),
            experts=experts,
            milliseconds=milliseconds,
            weights={name: self._experts[name].card.key for name in names},
            partial=bool(case.late) or case.fewer > 0,
            detector=self._card.key,
            stages=case.stages,
        )

    def _semisynthetic(self, case: _Case) -> float:
        """The experts' own shares, by their weight in the merge; where none tells, what the configuration says."""
        if case.shares:
            parts = {name: self.config.experts[name].weight_in(case.media.modality) for name in case.shares}
            said = (part * case.shares[name] for name, part in merge.shares(parts).items())
            return min(1.0, max(0.0, sum(said)))
        shares = self.config.semisynthetic
        fired = [shares[name] for name in case.views if name in shares]
        return max(fired) if fired else shares.get(GENERAL, 0.0)


def _spend(cases: Sequence[_Case], stage: str, seconds: float) -> None:
    for case in cases:
        case.stages[stage] = case.stages.get(stage, 0.0) + seconds * 1e3


def load(
    path: Path | None = None,
    *,
    device: str = "cpu",
    merge: str | None = None,
    threads: int | None = None,
    weights: Path | None = None,
) -> Camo:
    """Builds the gating network from a configuration and the weights folder; see :func:`detectors.camo_load.load`."""
    from detectors import camo_load  # noqa: PLC0415 - torch is needed from here on, and not before

    return camo_load.load(path, device=device, merge=merge, threads=threads, weights=weights)
