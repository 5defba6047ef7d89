"""One fuzzed parser, what one input may do to it, and the loop that feeds it mutated seeds.

The only outcomes a target knows are a result of the right kind and the documented refusal; its ``run`` turns both into
an :class:`Outcome`. Whatever else comes out (another exception, more time, more memory) is a :class:`Finding`.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal, NamedTuple, NoReturn

__all__ = ["Finding", "Fuzzer", "Outcome", "Target", "Verdict", "judged"]

Kind = Literal["exception", "slow", "memory", "crash", "hang"]
Mutate = Callable[[random.Random, bytes, Sequence[bytes]], bytes]

MAX_INPUT = 4 << 20
_STOP_S = 10.0  # a Python loop without an end is broken off here; native code by the supervisor
_IDLE_S = 2.0
_CORPUS = 400
_HOUSE = ("detectors", "neurons")
_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_ROOT = Path(__file__).resolve().parents[2]


class Outcome(NamedTuple):
    """What came out of one input: a result, or the documented refusal with its short reason."""

    accepted: bool
    key: str


@dataclass(frozen=True, slots=True)
class Target:
    """One parser.

    Attributes:
        name: of files and tables.
        seeds: valid inputs, made when first asked for.
        run: one input; returns for a result and for the documented refusal, and lets everything else through.
        mutate: (random, seed, all seeds) to the next input.
        seconds: an input may take.
        megabytes: an input may add to the resident memory at its peak.
        share: of the time, relative to the other targets.
        close: ends what `run` may have started, e.g. a server.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    run: Callable[[bytes], Outcome]
    mutate: Mutate
    seconds: float = 1.0
    megabytes: float = 128.0
    share: float = 1.0
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that no input may bring about."""

    target: str
    kind: Kind
    signature: str
    detail: str
    data: bytes

    @property
    def stem(self) -> str:
        """A file name without suffix, the same for the same fault at the same place."""
        return f"{self.target}-{self.kind}-{hashlib.sha256(self.signature.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One input's outcome (None where it was a finding), and its cost."""

    outcome: Outcome | None
    finding: Finding | None
    seconds: float
    megabytes: float
    signature: str


class _OutOfTimeError(BaseException):
    """Raised into an input that does not end; no parser catches a BaseException."""


def _raise(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _OutOfTimeError


@contextlib.contextmanager
def _watched(seconds: float) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _place(error: BaseException) -> str:
    """Type and innermost line of the house, from the root cause: tells two ways to one refusal apart."""
    while error.__cause__ is not None:
        error = error.__cause__
    where = "?"
    for frame in traceback.extract_tb(error.__traceback__):
        if any(f"/{part}/" in frame.filename for part in _HOUSE):
            where = f"{Path(frame.filename).name}:{frame.lineno}"
    return f"{type(error).__name__}@{where}"


def _peak_reset() -> float:
    """Megabytes of resident peak so far, after it was set back to what is resident now."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")
    return _peak()


def _peak() -> float:
    """Megabytes of resident peak.

    Of this image alone: getrusage also remembers the one that it was started from, a test runner of a gigabyte, and
    hides every peak below that.
    """
    line = next(line for line in _STATUS.read_bytes().splitlines() if line.startswith(b"VmHWM:"))
    return int(line.split()[1]) / 1024


def judged(target: Target, data: bytes) -> Verdict:
    """Runs one input, measured; what takes too long is measured three times, and the least counts.

    Time is the processor's, over all threads, which a busy machine does not change; an input that waits for two seconds
    beyond that is held against the clock.
    """
    verdict = _once(target, data)
    for _ in range(2):
        if verdict.seconds <= target.seconds or verdict.seconds >= _STOP_S:
            break
        again = _once(target, data)
        verdict = again if again.seconds < verdict.seconds else verdict
    if verdict.finding is not None:
        return verdict
    if verdict.seconds > target.seconds:
        detail = f"{verdict.seconds:.2f} s; at most {target.seconds:g} s"
        found = Finding(target.name, "slow", f"slow {verdict.signature}", detail, data)
    elif verdict.megabytes > target.megabytes:
        detail = f"{verdict.megabytes:.0f} MB at the peak; at most {target.megabytes:g}"
        found = Finding(target.name, "memory", f"memory {verdict.signature}", detail, data)
    else:
        return verdict
    return Verdict(None, found, verdict.seconds, verdict.megabytes, verdict.signature)


def _once(target: Target, data: bytes) -> Verdict:
    before = _peak_reset()
    start, used = time.perf_counter(), time.process_time()
    outcome: Outcome | None = None
    finding: Finding | None = None
    try:
        with _watched(_STOP_S):
            outcome = target.run(data)
        signature = outcome.key
    except _OutOfTimeError as error:
        signature = _place(error)
        finding = Finding(target.name, "hang", signature, "".join(traceback.format_exception(error)), data)
    except Exception as error:  # noqa: BLE001 - whatever a parser lets through is what is looked for
        signature = _place(error)
        finding = Finding(target.name, "exception", signature, "".join(traceback.format_exception(error)), data)
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    if seconds < cpu + _IDLE_S:
        seconds = cpu
    peak = _peak()
    return Verdict(outcome, finding, seconds, max(0.0, peak - before), signature)


@dataclass(slots=True)
class Fuzzer:
    """Feeds one target, keeps count, and remembers inputs that did something new as further seeds.

    Args:
        target: what is fed.
        seed: of everything random.
        before: called with each input before it is run, so that a crash leaves it behind.
    """

    target: Target
    seed: int
    before: Callable[[bytes], None] = lambda data: None
    inputs: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    peak_mb: float = 0.0
    findings: dict[str, Finding] = field(default_factory=dict)
    _random: random.Random = field(init=False)
    _corpus: list[bytes] = field(init=False)
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.target.name} {self.seed}")
        self._corpus = list(self.target.seeds())

    def run(self, seconds: float, count: int) -> None:
        """Feeds the seeds as they are, then mutations, until the time is up or `count` inputs were run."""
        end = time.monotonic() + seconds
        first = list(self._corpus) if self.inputs == 0 else []
        for number in range(count):
            if time.monotonic() >= end:
                return
            self.feed(first[number] if number < len(first) else self._next())

    def _next(self) -> bytes:
        seed = self._random.choice(self._corpus)
        return self.target.mutate(self._random, seed, self._corpus)[:MAX_INPUT]

    def feed(self, data: bytes) -> None:
        """Runs one input and counts it."""
        self.before(data)
        verdict = judged(self.target, data)
        self.inputs += 1
        self.slowest_s = max(self.slowest_s, verdict.seconds)
        self.peak_mb = max(self.peak_mb, verdict.megabytes)
        if verdict.finding is not None:
            self.findings.setdefault(verdict.finding.stem, verdict.finding)
        elif verdict.outcome is not None and verdict.outcome.accepted:
            self.accepted += 1
        elif verdict.outcome is not None:
            self.refused[verdict.outcome.key] += 1
        if verdict.signature not in self._seen and len(data) <= 1 << 16 and len(self._corpus) < _CORPUS:
            self._seen.add(verdict.signature)
            self._corpus.append(data)
