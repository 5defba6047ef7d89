"""A short slice of the swap benchmark, and proof that what it looks for would be noticed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from scripts.bench_swap import Answer, Run, main, parsed, report, verdicts

EXPECTED = {"camo@a": [0.2, 0.4], "camo@b": [0.5, 0.8]}


def clean() -> Run:
    """Ten answers of each set, a tenth of a second each; a swap in the middle."""
    answers = [Answer(k / 10, k / 10 + 0.1, k % 2, 200, EXPECTED["camo@a"][k % 2], "camo@a") for k in range(10)]
    answers += [Answer(k / 10, k / 10 + 0.1, k % 2, 200, EXPECTED["camo@b"][k % 2], "camo@b") for k in range(10, 20)]
    return Run(answers, swaps=[(0.75, 1.05)], rss_mib=[100.0] * 10)


def failed(run: Run, *, memory: bool = False) -> list[str]:
    return [name for name, met in verdicts(report(run, EXPECTED), memory).items() if not met]


def test_a_clean_run_meets_everything() -> None:
    assert failed(clean()) == failed(clean(), memory=True) == []
    figures = report(clean(), EXPECTED)
    assert (figures["requests"], figures["requests_during"], figures["sets_seen"]) == (20, 4, 2)
    assert figures["latency_ms"]["outside"]["p50"] == pytest.approx(100, abs=1)


def test_what_it_looks_for_is_noticed() -> None:
    run = clean()
    run.answers[3] = dataclasses.replace(run.answers[3], p_fake=0.6)  # neither set says so
    assert failed(run) == ["no answer mixed"]
    run = clean()
    run.answers[3] = dataclasses.replace(run.answers[3], named="camo@b")  # the other set's name
    assert failed(run) == ["no answer mixed"]
    run = clean()
    run.answers[4] = dataclasses.replace(run.answers[4], status=503, p_fake=None)
    assert failed(run) == ["no request failed"]
    run = clean()
    run.refused.append("golden: drifted")
    assert failed(run) == ["no swap refused"]
    run = clean()
    run.answers[8] = dataclasses.replace(run.answers[8], done=run.answers[8].due + 0.3)
    assert failed(run) == ["p99 during at most 1.5 x outside"]
    run = clean()
    run.rss_mib[-2:] = [104.0, 104.0]
    assert failed(run, memory=True) == ["RSS drift below 3%"]


def test_nothing_swapped_is_no_proof() -> None:
    run = Run([a for a in clean().answers if a.named == "camo@a"], rss_mib=[100.0, 100.0])
    assert set(failed(run)) == {"no answer mixed", "p99 during at most 1.5 x outside"}


def test_a_memory_run_is_longer() -> None:
    assert (parsed([]).swaps, parsed(["--memory"]).swaps) == (20, 100)
    assert parsed(["--memory", "--swaps", "5"]).swaps == 5


@pytest.mark.slow
def test_two_swaps_of_the_default_detector(tmp_path: Path) -> None:
    """The real server; other tests share the machine, so neither latency nor an honest 503 is held against it here."""
    out = tmp_path / "swap.json"
    main(["--swaps", "2", "--rate", "2", "--gap", "0.5", "--threads", "1", "--out", str(out)])
    figures = json.loads(out.read_text())
    statuses = figures["statuses"]
    assert set(statuses) <= {"200", "503"}
    assert statuses["200"] > 0.8 * figures["requests"]
    assert figures["failed"] == statuses.get("503", 0)
    wanted = {"p99 during at most 1.5 x outside"} | ({"no request failed"} if figures["failed"] else set())
    assert {name for name, met in figures["checks"].items() if not met} <= wanted
    assert (figures["swaps"], figures["mixed"], figures["sets_seen"]) == (2, 0, 3)
    assert figures["least_difference_of_two_sets"] > 0.01
