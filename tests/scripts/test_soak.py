"""The soak: a short one against a real miner, and the judge's eye for everything that must not be."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from neurons import keys
from scripts.soak import Soak, plan_for
from scripts.soak_child import Vitals
from scripts.soak_hostile import EXPECTED, Hostile
from scripts.soak_judge import Check, Course, Outage, judge, markdown
from scripts.soak_load import Outcome, paced
from tests.neurons.loopback import Client, against

RIGHT = (0.5, (0.5, 0.5, 0.0))
WIRES = ("dendrite", "btauth", "epistula")


@pytest.mark.slow
def test_half_a_minute_of_everything(tmp_path: Path) -> None:
    """At a modest rate, because this machine has other things to do; what fails here fails at any rate."""
    soak = Soak(dataclasses.replace(plan_for(14.0, share=0.2), capacity_s=1.5), tmp_path)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        course = runner.run(soak.run())
    checks = judge(course)
    assert not [check for check in checks if check.met is False], markdown(checks) + soak.child.tail(20)
    assert len(course.outcomes) > 30
    assert {o.wire for o in course.outcomes if o.status == 200} == set(WIRES)
    assert set(course.tried.got) == set(EXPECTED)
    assert course.outage is not None
    assert course.outage.back > course.outage.away > 0
    away = [o for o in course.outcomes if course.outage.refused_from() < o.sent and o.done < course.outage.back]
    assert all((o.status == 200) == o.listed for o in away)


def test_attacks_get_what_is_foreseen_and_a_weak_server_is_found_out() -> None:
    async def attack(client: Client) -> None:
        async def hostile(max_body_bytes: int) -> Hostile:
            attacker = Hostile(
                (client.ip, client.port),
                keys.from_uri("//Miner").ss58_address,
                keys.from_uri("//Alice"),
                header_timeout_s=0.5,
                body_timeout_s=0.5,
                max_body_bytes=max_body_bytes,
            )
            await asyncio.gather(*(attacker.one(0.0) for _ in EXPECTED))
            return attacker

        # This server knows no metagraph, so the stranger is served: exactly that is what must be noticed.
        tried = (await hostile(2**25)).tried
        assert tried.unexpected == ["stranger: 200"]
        assert (tried.let_in, tried.count) == (1, len(EXPECTED))
        # A body that this server takes, and then waits for: told as too slow where "too large" was foreseen.
        assert "oversized: 408" in (await hostile(2**20)).tried.unexpected

    from neurons.bodies import BodyLimits  # noqa: PLC0415
    from neurons.httpd import Listen  # noqa: PLC0415

    against(attack, listen=Listen(header_timeout_s=0.5), limits=BodyLimits(body_timeout_s=0.5))


def test_a_rate_is_kept_whatever_the_miner_does() -> None:
    async def run() -> list[float]:
        dues: list[float] = []

        async def fire(due: float) -> None:
            dues.append(due)
            await asyncio.sleep(0.3)  # an answer that takes longer than the time between two requests

        await asyncio.gather(*await paced(fire, 400.0, 0.5, seed=3))
        return dues

    dues = asyncio.run(run())
    assert 130 < len(dues) < 270
    assert dues == sorted(dues)
    assert dues[-1] - dues[0] < 0.5


def outcome(at: float, status: int = 200, *, listed: bool = False, kind: int = 0, seconds: float = 0.01) -> Outcome:
    wire = WIRES[kind % 3]
    reason = {503: "stale_metagraph"}.get(status, "")
    answer = (RIGHT[0] if wire == "dendrite" else RIGHT[1]) if status == 200 else None
    modality = "video" if kind // 3 % 2 else "image"
    return Outcome(at, at, at + seconds, wire, modality, listed, status, reason, answer)  # type: ignore[arg-type]


def course() -> Course:
    """A minute in which all went well: the chain away from 20 to 40, not to be trusted from 30, back in use at 42."""
    outage = Outage(refresh_s=1.0, max_age_s=10.0, timeout_s=1.0, left=20.0, away=20.0, back=40.0)
    honest = []
    for k in range(600):
        listed, at = k % 8 == 0, k / 10
        stale = 30.0 < at < 42.0 and not listed
        honest.append(outcome(at, 503 if stale else 200, listed=listed, kind=k))
    vitals = [Vitals(float(k), 200.0 + (k % 3), 40, 8, 0, 1.0) for k in range(60)]
    rest = Vitals(0.0, 200.0, 14, 8, 0, 1.0)
    return Course(honest, vitals, (rest, rest), outage, 60.0, 0, [], RIGHT)


def failed(seen: Course) -> list[str]:
    return [check.name for check in judge(seen) if check.met is False]


def test_a_good_course_is_good_and_everything_is_judged() -> None:
    checks = judge(course())
    assert failed(course()) == []
    assert [c.name for c in checks if c.met is None] == [
        "files open under load, first fifth to last",
        "threads under load, first fifth to last",
    ]
    again = next(c for c in checks if c.name == "serves again after the chain is back")
    assert again.got == "after 2.0 s"


def _swap(index: int, new: Outcome) -> Callable[[Course], None]:
    def spoil(seen: Course) -> None:
        seen.outcomes[index] = new

    return spoil


def _leak(seen: Course) -> None:
    seen.vitals = [dataclasses.replace(v, rss_mib=200.0 + v.at / 4) for v in seen.vitals]


def _rest(**more: int) -> Callable[[Course], None]:
    def spoil(seen: Course) -> None:
        seen.rest = (seen.rest[0], dataclasses.replace(seen.rest[1], **more))

    return spoil


def _exit(seen: Course) -> None:
    seen.exit_code, seen.left_behind = -9, [4711]


def _busy(seen: Course) -> None:
    seen.generator_cores = 0.95


def _never_back(seen: Course) -> None:
    seen.outcomes = [o if o.listed or o.sent < 30 else outcome(o.sent, 503) for o in seen.outcomes]
    seen.ended = 200.0


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (_swap(55, outcome(5.5, 503)), ["honest requests not answered"]),  # a refusal that nothing excuses
        (_swap(55, outcome(5.5, 0)), ["honest requests not answered"]),
        (_swap(55, outcome(5.5)._replace(answer=0.4)), ["honest requests not answered"]),
        (_swap(350, outcome(35.0, 500)), ["honest requests not answered"]),  # also while it may refuse
        (_swap(350, outcome(35.0)), ["served on a view that is too old"]),
        (_swap(55, outcome(5.5, seconds=9.5)), ["honest answers after the caller's 9 s"]),
        (
            _swap(225, outcome(22.5, 503)),
            ["honest requests not answered", "served on while the chain is away, up to 10 s"],
        ),
        (
            _swap(352, outcome(35.2, 503, listed=True)),
            ["honest requests not answered", "callers on the allow list served meanwhile"],
        ),
        (_never_back, ["serves again after the chain is back"]),
        (_leak, ["memory, first fifth to last"]),
        (_rest(files=15), ["open files at rest, before and after"]),
        (_rest(threads=9), ["threads at rest, before and after"]),
        (_rest(children=1), ["child processes at rest, before and after"]),
        (_busy, ["the generator's cores while capacity was measured"]),
        (_exit, ["exit code when told to stop under load", "processes left behind"]),
    ],
)
def test_each_limit_is_noticed_when_it_is_broken(spoil: Callable[[Course], None], names: list[str]) -> None:
    seen = course()
    spoil(seen)
    assert failed(seen) == names


def answered(seen: Course) -> bool | None:
    return next(check.met for check in judge(seen) if check.name == "honest requests not answered")


@pytest.mark.parametrize(
    ("others", "status", "reason", "met"),
    [
        (0.1, 503, "queue_full", False),  # the machine was the miner's: its own fault
        (0.5, 503, "queue_full", None),
        (0.5, 503, "closing", False),
        (0.5, 500, "", False),
        (0.5, 0, "broken", False),
    ],
)
def test_overload_is_excused_only_on_a_machine_that_others_use(
    others: float, status: int, reason: str, met: bool | None
) -> None:
    seen = course()
    seen.others = others
    seen.outcomes[105] = outcome(10.5, status)._replace(reason=reason)
    assert answered(seen) is met


def test_what_cannot_be_judged_is_said_and_not_failed() -> None:
    seen = course()
    seen.vitals = seen.vitals[:20]
    memory = next(c for c in judge(seen) if c.name.startswith("memory"))
    assert memory.met is None
    assert "| not judged |" in markdown([memory])
    assert "**no**" in markdown([Check("x", "0", "1", False)])
