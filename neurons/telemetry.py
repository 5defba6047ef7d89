"""Prometheus metrics of one miner, in a registry of its own.

What a request was is counted when it ends (:meth:`Metrics.observe`); what is so now is asked of the miner when somebody
looks (:class:`Sources`). Every label comes from a closed set, or from the operator's own configuration and then of at
most 64 names: no caller can make a series, and no hotkey is one.
"""

from __future__ import annotations

import functools
import logging
import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Generic, TypeVar, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from detectors.types import Modality, Prediction
from neurons.drift import BINS, WINDOW, Window, psi
from neurons.operations import ShadowReport, SwapReport, SwapStage
from neurons.outcomes import FAILED, LATE, OUTCOMES
from neurons.seen import ANSWERED, Seen, Tier
from neurons.wire.routes import WireName

__all__ = ["OTHER", "PREFIX", "Metrics", "Sources"]

_log = logging.getLogger(__name__)

PREFIX: Final = "deepfake_miner"
OTHER: Final = "other"
"""Label of what has no name of its own."""

_TOGETHER = 128  # requests that are counted in one go, in about a millisecond
_NAMES = 64  # names of experts, gates and routes that are told apart; a swap may bring new ones
_WIRES: Final = frozenset(get_args(WireName))
_TIERS: Final = frozenset(get_args(Tier))
_MODALITIES: Final[tuple[Modality, ...]] = get_args(Modality)
_STAGE_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0)
_SHARES = tuple((index + 1) / BINS for index in range(BINS))


def _nothing() -> None:
    return None


def _none() -> dict[Any, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Sources:
    """What metrics ask of a miner when they are read, on the thread of whoever reads: quick, and no lock held long.

    One that raises leaves its metric out.

    Attributes:
        queue_depth: challenges that wait.
        in_flight: requests between body and answer.
        serving: whether challenges are admitted; also what ``/healthz`` says.
        snapshot_age_s: of the metagraph; None offline.
        detector: ``NAME@VERSION`` of what answers now; empty where nothing does.
        weights: ``NAME@VERSION`` by name of expert, of what answers now.
        reference: shares of P(fake) in ten bins that the present detector is expected to give, by modality; see
            ``reference`` in ``configs/camo.yaml``.
        shadow: how the candidate does.
        queue_limit, deadline_s, snapshot_limit_s: the settings that alerts compare with; 0 for unknown.
    """

    queue_depth: Callable[[], int] = int
    in_flight: Callable[[], int] = int
    serving: Callable[[], bool] = lambda: True
    snapshot_age_s: Callable[[], float | None] = _nothing
    detector: Callable[[], str] = str
    weights: Callable[[], Mapping[str, str]] = _none
    reference: Callable[[], Mapping[Modality, Sequence[float]]] = _none
    shadow: Callable[[], ShadowReport | None] = _nothing
    queue_limit: int = 0
    deadline_s: float = 0.0
    snapshot_limit_s: float = 0.0


class Metrics:
    """Everything that ``GET /metrics`` shows.

    Args:
        sources: what is asked of the miner.
        window: answers of a modality that drift is told of.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        sources: Sources | None = None,
        *,
        window: int = WINDOW,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = sources or Sources()
        self._window = window
        self.registry = CollectorRegistry()
        self._answered_by = ""
        self._windows = self._new_windows()
        # Counted together: one by one, between two requests, each costs twice as much as in a row.
        self._uncounted: deque[Seen] = deque()
        self._counting = threading.Lock()
        self.registry.register(_First(self._count_all))
        self._make()
        Info("build", "What runs.", namespace=PREFIX, registry=self.registry).info(
            {"version": _version(), "python": platform.python_version()}
        )
        self.registry.register(_Now(self._sources, self._drift, clock))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def _make(self) -> None:
        requests = self._counter("requests", "Requests to a challenge path, ended.", "wire", "tier", "outcome")
        self._requests: dict[tuple[str, str, str], Counter] = {}
        self._requests_family = requests
        for wire in sorted(_WIRES):  # Prometheus sees no increase where a series begins: what alerts read is there
            self._request(wire, "validator", ANSWERED)
        misses = self._counter("deadline_misses", "Challenges refused because late, or as they would be.", "reason")
        failures = self._counter("failures", "Requests that failed through our own fault.", "reason")
        self._alarming = {**self._fixed(misses, LATE), **self._fixed(failures, FAILED)}
        self._latency = self._fixed(
            self._histogram("request_seconds", "Headers to answer, of answered and late.", _REQUEST_S, "modality"),
            _MODALITIES,
        )
        self._p_fake = self._fixed(
            self._histogram("prediction_p_fake", "P(fake) of the answers.", _SHARES, "modality"), _MODALITIES
        )
        self._partial = self._fixed(
            self._counter("partial_answers", "Answers that left somebody out, or frames, for time.", "modality"),
            _MODALITIES,
        )
        self._stages = _Few(
            self._histogram("stage_seconds", "Stages of admitted challenges, of their batch.", _STAGE_S, "stage")
        )
        self._late = _Few(self._counter("left_out", "Experts and gates left out because late.", "stage"))
        self._broken = _Few(self._counter("broken", "Experts that computed no finite number.", "stage"))
        self._routes = _Few(self._counter("routes", "Answers by what was run.", "route"))
        self._labelled = self._counter("labelled", "Answers whose truth the caller sent.", "modality", "correct")
        self._swaps = self._counter("swaps", "Attempts to serve with others.", "stage", "accepted")
        for stage in get_args(SwapStage):
            self._swaps.labels(stage, _flag(stage == "done"))

    def observe(self, seen: Seen) -> None:
        """Takes a request in: an :data:`neurons.seen.Observer`. It is counted before anybody reads."""
        self._uncounted.append(seen)
        if len(self._uncounted) >= _TOGETHER:
            self._count_all()

    def _count_all(self) -> None:
        """Any thread. Whoever counts holds the lock for a millisecond at most, the axon's loop can wait for that."""
        with self._counting:
            for _ in range(len(self._uncounted)):
                self._count(self._uncounted.popleft())

    def _count(self, seen: Seen) -> None:
        self._request(seen.wire, seen.tier, seen.outcome).inc()
        alarming = self._alarming.get(seen.outcome)
        if alarming is not None:
            alarming.inc()
        modality = seen.modality
        if not modality:
            return  # refused before anything was done for it: a flood ends here
        if seen.outcome in (ANSWERED, "late"):
            self._latency[modality].observe(seen.seconds)
        for name, spent_ms in seen.stages.items():
            self._stages[name].observe(spent_ms / 1e3)
        if seen.prediction is not None:
            self._answer(seen.prediction, modality)
            if seen.label is not None:
                correct = (seen.prediction.p_fake > 0.5) == (seen.label != 0)
                self._labelled.labels(modality, _flag(correct)).inc()

    def swapped(self, report: SwapReport) -> None:
        """Counts an attempt to serve with other weights or another configuration. Any thread."""
        self._swaps.labels(report.stage, _flag(report.accepted)).inc()

    def exposition(self) -> tuple[bytes, str]:
        """Everything in Prometheus' text format, and its content type. Any thread."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    def healthy(self) -> bool:
        """Whether challenges are admitted."""
        return self._sources.serving()

    def _request(self, wire: str, tier: str, outcome: str) -> Counter:
        key = (
            wire if wire in _WIRES else OTHER,
            tier if tier in _TIERS else OTHER,
            outcome if outcome in OUTCOMES else OTHER,
        )
        found = self._requests.get(key)
        if found is None:
            found = self._requests[key] = self._requests_family.labels(*key)
        return found

    def _answer(self, prediction: Prediction, modality: Modality) -> None:
        if prediction.detector != self._answered_by:  # what another one said tells nothing of this one
            self._answered_by, self._windows = prediction.detector, self._new_windows()
        self._windows[modality].add(prediction.p_fake)
        self._p_fake[modality].observe(prediction.p_fake)
        if prediction.partial:
            self._partial[modality].inc()
        ran = []
        for step in prediction.route:
            kind, _, name = step.partition(":")
            if kind == "late":
                self._late[name].inc()
            elif kind == "broken":
                self._broken[name].inc()
            elif kind != "frames":
                ran.append(step)
        self._routes[" > ".join(ran)].inc()

    def _new_windows(self) -> dict[Modality, Window]:
        return {modality: Window(self._window) for modality in _MODALITIES}

    def _drift(self) -> Iterator[tuple[Modality, int, float]]:
        """By modality: answers in the window, and their index."""
        windows, reference = self._windows, self._sources.reference()
        for modality, window in windows.items():
            counts = window.counts
            yield modality, sum(counts), psi(counts, reference.get(modality, ()))

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, namespace=PREFIX, registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, what, labels, namespace=PREFIX, registry=self.registry, buckets=buckets)

    @staticmethod
    def _fixed(family: _Family, names: Sequence[str] | frozenset[str]) -> dict[str, _Family]:
        return {name: family.labels(name) for name in names}


_Family = TypeVar("_Family", bound=MetricWrapperBase)


class _First(Collector):
    """Registered before all others: does something whenever somebody reads, and has nothing to show itself."""

    def __init__(self, do: Callable[[], None]) -> None:
        self._do = do

    def collect(self) -> Iterator[GaugeMetricFamily]:
        self._do()
        return iter(())


class _Few(Generic[_Family]):
    """The children of a metric with one label, bound once each; beyond 64 names all are :data:`OTHER`."""

    def __init__(self, family: _Family) -> None:
        self._family = family
        self._known: dict[str, _Family] = {}

    def __getitem__(self, name: str) -> _Family:
        found = self._known.get(name)
        if found is None:
            if len(self._known) >= _NAMES:
                return self._family.labels(OTHER)
            found = self._known[name] = self._family.labels(name)
        return found


class _Now(Collector):
    """What is so at the moment of a scrape."""

    def __init__(
        self,
        sources: Sources,
        drift: Callable[[], Iterator[tuple[Modality, int, float]]],
        clock: Callable[[], float],
    ) -> None:
        self._sources = sources
        self._drift = drift
        self._clock = clock
        self._started = clock()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        sources = self._sources
        numbers: tuple[tuple[str, str, Callable[[], float | None]], ...] = (
            ("uptime_seconds", "Since the metrics were made.", lambda: self._clock() - self._started),
            ("serving", "1 while challenges are admitted.", sources.serving),
            ("queue_depth", "Challenges that wait.", sources.queue_depth),
            ("queue_limit", "Challenges that may wait; 0 unknown.", lambda: sources.queue_limit),
            ("in_flight", "Requests between body and answer.", sources.in_flight),
            ("deadline_seconds", "Longest time an answer may take; 0 unknown.", lambda: sources.deadline_s),
            ("snapshot_age_seconds", "Of the metagraph; absent offline.", sources.snapshot_age_s),
            ("snapshot_age_limit_seconds", "From which nobody is served; 0 unknown.", lambda: sources.snapshot_limit_s),
        )
        for name, what, read in numbers:
            yield self._gauge(name, what, (), functools.partial(_asked, read))
        yield self._gauge("detector_info", "What answers now.", ("name", "version"), self._detector)
        yield self._gauge("weights_info", "Whose weights answer now.", ("expert", "name", "version"), self._weights)
        yield self._gauge(
            "prediction_drift_psi", "Population stability index of the last answers.", ("modality",), self._index
        )
        yield self._gauge("prediction_drift_answers", "Answers it is told of.", ("modality",), self._answers)
        yield from self._shadow()

    def _gauge(
        self, name: str, what: str, labels: Sequence[str], read: Callable[[], Mapping[tuple[str, ...], float]]
    ) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"{PREFIX}_{name}", what, labels=labels)
        try:
            for values, number in read().items():
                family.add_metric(values, number)
        except Exception:  # noqa: BLE001 - a part of the miner that cannot be asked must not hide the others
            _log.warning("%s could not be read", name, exc_info=True)
        return family

    def _detector(self) -> dict[tuple[str, ...], float]:
        key = self._sources.detector()
        return {_parts(key): 1.0} if key else {}

    def _weights(self) -> dict[tuple[str, ...], float]:
        return {(expert, *_parts(key)): 1.0 for expert, key in self._sources.weights().items()}

    def _index(self) -> dict[tuple[str, ...], float]:
        return {(modality,): found for modality, _, found in self._drift()}

    def _answers(self) -> dict[tuple[str, ...], float]:
        return {(modality,): count for modality, count, _ in self._drift()}

    def _shadow(self) -> Iterator[GaugeMetricFamily]:
        def read(attribute: str) -> Callable[[], dict[tuple[str, ...], float]]:
            return lambda: _single(getattr(self._sources.shadow(), attribute, None))

        for attribute, what in (
            ("judged", "Challenges that the candidate judged too."),
            ("skipped", "Challenges that live work left the candidate no time for."),
            ("agreement", "Share of the judged on the same side of 0.5."),
            ("mean_difference", "Mean of the candidate's minus the active's P(fake)."),
        ):
            yield self._gauge(f"shadow_{attribute}", what, (), read(attribute))


def _asked(read: Callable[[], float | None]) -> dict[tuple[str, ...], float]:
    return _single(read())


def _single(number: float | None) -> dict[tuple[str, ...], float]:
    return {} if number is None else {(): float(number)}


def _parts(key: str) -> tuple[str, str]:
    """``NAME@VERSION`` in two."""
    name, _, number = key.partition("@")
    return name, number


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _version() -> str:
    try:
        return version("deepfake-miner")
    except PackageNotFoundError:
        return "unknown"
