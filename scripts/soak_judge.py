"""What a soak must have been like: the limits, each with what was wanted and what was found, and the table of it."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from scripts.soak_child import Vitals
from scripts.soak_hostile import Tried
from scripts.soak_load import TIMEOUT_S, Outcome

__all__ = ["TOLD", "Check", "Course", "Outage", "granted", "judge", "markdown", "percentile"]

TOLD = "told only"
"""What is wanted of a figure without a limit."""
_FEW = 10  # samples or answers below which a limit says nothing
_MOST_DRIFT = 0.05
_MOST_BUSY = 0.8  # of the one core that the generator can use: above it, what was measured may be its own capacity
_SLACK_S = 1.0  # between a moment here and the same moment in the miner
_OVERLOAD = frozenset({"queue_full", "overloaded", "in_flight"})
_MOST_OTHERS = 0.2  # of all cores: above it, the machine is not the miner's
_STALE = frozenset({(503, "stale_metagraph")})


@dataclass(frozen=True)
class Check:
    """One limit.

    Attributes:
        name: what is limited.
        wanted, got: as text.
        met: None where it could not be judged.
    """

    name: str
    wanted: str
    got: str
    met: bool | None


@dataclass
class Outage:
    """When the chain was away, ``time.monotonic()`` seconds, and what the miner was told about it.

    Attributes:
        refresh_s, max_age_s, timeout_s: the miner's settings.
        left: before it was taken away.
        away: when that was confirmed.
        back: before it was given back.
        known_by: when the miner must have noticed at the latest: its longest wait is over.
    """

    refresh_s: float
    max_age_s: float
    timeout_s: float
    left: float = 0.0
    away: float = 0.0
    back: float = 0.0

    @property
    def known_by(self) -> float:
        """The wait that is under way when the chain comes back is at most twice what has passed, 60 s in all."""
        return self.back + min(60.0, 2 * (self.back - self.left) + 4.0) + 2 * self.timeout_s + _SLACK_S

    def trusted_until(self) -> float:
        """Until then the miner must serve on with what it knows."""
        return self.left + self.max_age_s - self.refresh_s - _SLACK_S

    def refused_from(self) -> float:
        """From then on nobody may be served on the old view."""
        return self.away + self.max_age_s + _SLACK_S


@dataclass
class Course:
    """Everything that was seen.

    Attributes:
        outcomes: of honest requests.
        vitals: of the miner, at even times under load, from its very start.
        rest: the miner without any connection, before the load and after it.
        outage: None where the chain stayed.
        ended: when the load ended.
        exit_code: of the miner, told to stop under load.
        left_behind: processes of its session that outlived it.
        expected: the only right answers, as (float, vector); None where any valid one is.
        tried: what the attacks got.
        stopped_with: honest outcomes around the order to stop.
        generator_cores: processor time of the load generator a second, while capacity was measured.
        others: share of the machine's processor time under load that neither the miner nor the generator used.
        warm_at: from when on samples count for memory.
    """

    outcomes: list[Outcome]
    vitals: list[Vitals]
    rest: tuple[Vitals, Vitals]
    outage: Outage | None
    ended: float
    exit_code: int
    left_behind: list[int]
    expected: tuple[float, tuple[float, float, float]] | None
    tried: Tried = field(default_factory=Tried)
    stopped_with: list[Outcome] = field(default_factory=list)
    generator_cores: float = 0.0
    others: float = 0.0
    warm_at: float = 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """Of unsorted values, nearest rank; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def judge(course: Course) -> list[Check]:
    """Every limit, in the order of the table.

    A refusal for overload says nothing about the miner on a machine that others use: what they leave changes from one
    second to the next, so 70 % of the capacity of a moment ago may be all of it now. There such refusals are counted
    and leave the first limit open; every other failure breaks it.
    """
    kept = [o for o in course.outcomes if not _starved(o, course)]
    starved = len(course.outcomes) - len(kept)
    course = dataclasses.replace(course, outcomes=kept)
    must, checks = _must_be_answered(course)
    failed = [o for o in must if not _right(o, course)]
    late = [o for o in must if o.status == 200 and o.done - o.sent > TIMEOUT_S]
    first = ", ".join(f"{n} x {what}" for what, n in Counter(_what(o) for o in failed).most_common(4))
    checks[:0] = [
        Check(
            "honest requests not answered",
            "0",
            f"{len(failed)} of {len(must)} {first}".strip()
            + (f"; {starved} more for overload, while others used the machine" * bool(starved)),
            False if failed else None if starved else True,
        ),
        Check(f"honest answers after the caller's {TIMEOUT_S:g} s", "0", str(len(late)), not late),
        _every_kind(course),
        Check(
            "hostile requests answered", "0", f"{course.tried.let_in} of {course.tried.count}", not course.tried.let_in
        ),
        Check(
            "hostile requests refused otherwise than foreseen",
            "0",
            ", ".join(dict.fromkeys(course.tried.unexpected)) or "0",
            not course.tried.unexpected,
        ),
    ]
    cores, limit = course.generator_cores, f"below {_MOST_BUSY:g}"
    generator = Check("the generator's cores while capacity was measured", limit, f"{cores:.2f}", cores < _MOST_BUSY)
    return [*checks, generator, *_resources(course)]


def _starved(outcome: Outcome, course: Course) -> bool:
    return course.others > _MOST_OTHERS and outcome.status == 503 and outcome.reason in _OVERLOAD


def granted(before: Vitals, after: Vitals) -> float:
    """The share of the processor time wanted in between that was given; 1 where none was wanted."""
    ran, waited = after.cpu_s - before.cpu_s, after.wait_s - before.wait_s
    return ran / (ran + waited) if ran + waited > 0 else 1.0


def _what(outcome: Outcome) -> str:
    return f"{outcome.wire} {outcome.modality} {outcome.status} {outcome.reason}".strip()


def _right(outcome: Outcome, course: Course) -> bool:
    if outcome.status != 200 or outcome.answer is None:
        return False
    return course.expected is None or outcome.answer in course.expected


def _must_be_answered(course: Course) -> tuple[list[Outcome], list[Check]]:
    """The requests that nothing excuses, and what the outage was like."""
    outage = course.outage
    if outage is None:
        return course.outcomes, []
    judged = [o for o in course.outcomes if not o.listed and o.sent > outage.back and _right(o, course)]
    recovered = min((o.done for o in judged), default=None)
    must, between, old = [], [], []
    for o in course.outcomes:
        if o.listed or o.done < outage.trusted_until() or (recovered is not None and o.sent > recovered):
            must.append(o)
        elif o.sent > outage.refused_from() and o.done < outage.back:
            old.append(o)
        else:
            between.append(o)
    # Who is refused for want of a metagraph must be told so; anything else is a failure like any other.
    must += [o for o in (*between, *old) if not _right(o, course) and (o.status, o.reason) not in _STALE]
    within = [o for o in course.outcomes if not o.listed and outage.away < o.sent and o.done < outage.trusted_until()]
    served_old = sum(o.status == 200 for o in old)
    told = Counter(str(o.status) for o in old)
    listed = [o for o in course.outcomes if o.listed and outage.away < o.sent < outage.back]
    after = None if recovered is None else recovered - outage.back
    unseen = recovered is None and course.ended < outage.known_by
    return must, [
        Check(
            f"served on while the chain is away, up to {outage.max_age_s:g} s",
            "all",
            f"{sum(_right(o, course) for o in within)} of {len(within)}",
            None if len(within) < _FEW else all(_right(o, course) for o in within),
        ),
        Check(
            "served on a view that is too old",
            "0",
            f"{served_old} of {len(old)}; told {dict(sorted(told.items()))}",
            None if len(old) < _FEW else served_old == 0,
        ),
        Check(
            "callers on the allow list served meanwhile",
            "all",
            f"{sum(_right(o, course) for o in listed)} of {len(listed)}",
            None if len(listed) < _FEW else all(_right(o, course) for o in listed),
        ),
        Check(
            "serves again after the chain is back",
            f"within {outage.known_by - outage.back:.0f} s",
            "not seen" if after is None else f"after {after:.1f} s",
            None if unseen else after is not None and after <= outage.known_by - outage.back,
        ),
    ]


def _every_kind(course: Course) -> Check:
    """Nothing is proven of a wire or a modality that was never answered."""
    kinds = Counter((o.wire, o.modality) for o in course.outcomes if _right(o, course))
    got = ", ".join(f"{wire} {modality} {n}" for (wire, modality), n in sorted(kinds.items()))
    return Check("wires and media answered", "6 kinds", got, len(kinds) == 6 if len(course.outcomes) > 200 else None)


def _resources(course: Course) -> list[Check]:
    before, after = course.rest
    warm = [v for v in course.vitals if v.at >= course.warm_at]
    fifth = len(warm) // 5
    enough = fifth >= _FEW

    def drift(of: Callable[[Vitals], float]) -> tuple[float, float, float]:
        first, last = (statistics.median(map(of, part)) for part in (warm[:fifth], warm[-fifth:]))
        return first, last, last / first - 1.0

    checks = []
    if fifth:
        first, last, change = drift(lambda v: v.rss_mib)
        text = f"{100 * change:+.2f} % ({first:.1f} to {last:.1f} MiB, medians of {fifth} samples each)"
        checks.append(
            Check("memory, first fifth to last", "below +5 %", text, change < _MOST_DRIFT if enough else None)
        )
        for name, first, last, _ in (
            ("files open under load", *drift(lambda v: v.files)),
            ("threads under load", *drift(lambda v: v.threads)),
        ):
            checks.append(Check(f"{name}, first fifth to last", TOLD, f"{first:g} to {last:g}", None))
    checks += [
        Check(f"{name} at rest, before and after", "no more", f"{first} and {last}", last <= first)
        for name, first, last in (
            ("open files", before.files, after.files),
            ("threads", before.threads, after.threads),
            ("child processes", before.children, after.children),
        )
    ]
    stopped = [o for o in course.stopped_with if o.status == 200 and not _right(o, course)]
    return [
        *checks,
        Check("exit code when told to stop under load", "0", str(course.exit_code), course.exit_code == 0),
        Check("wrong answers while it stopped", "0", f"{len(stopped)} of {len(course.stopped_with)}", not stopped),
        Check("processes left behind", "0", str(len(course.left_behind)), not course.left_behind),
    ]


def markdown(checks: Sequence[Check]) -> str:
    """The table for the documentation."""
    says = {True: "yes", False: "**no**", None: "not judged"}
    told = [c.wanted == TOLD for c in checks]
    lines = ["| | wanted | found | met |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {c.name} | {'' if only else c.wanted} | {c.got} | {'' if only else says[c.met]} |"
        for c, only in zip(checks, told, strict=True)
    ]
    return "\n".join(lines)


def as_data(checks: Sequence[Check]) -> list[dict[str, Any]]:
    return [asdict(check) for check in checks]
