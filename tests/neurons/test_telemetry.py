"""What the metrics say after real requests on all wires, and that nobody who asks can make them grow."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import threading
import uuid
from collections.abc import Mapping, Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from detectors.types import Media, Modality, Prediction
from neurons.access import AccessRules, Standing
from neurons.drift import BINS
from neurons.operations import ShadowPlan, ShadowReport, SwapReport
from neurons.pipeline import Judge
from neurons.scheduler import Limits
from neurons.seen import ANSWERED, Seen
from neurons.telemetry import PREFIX, Metrics, Sources
from neurons.wire.client import challenge_request
from tests.detectors.fixtures_camo import build, config
from tests.neurons.loopback import ALICE, BOB, GOOD, MINER, Client, Held, against, ask

ANSWER = Prediction((0.25, 0.75, 0.0), route=("general", "merge:learned"), detector="camo@1")
SEEN = Seen(
    "1-1", 0.0, "/detect_image", "epistula", "5x", "validator", "image", ANSWERED, 200, 0.2, {"queue": 3.0}, ANSWER
)


def read(metrics: Metrics, name: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"{PREFIX}_{name}", labels)


def answers(metrics: Metrics, p_fake: float, count: int, detector: str = "camo@1") -> None:
    said = dataclasses.replace(ANSWER, probabilities=Prediction.split(p_fake), detector=detector)
    for _ in range(count):
        metrics.observe(dataclasses.replace(SEEN, prediction=said))


def test_real_requests_on_every_wire() -> None:
    metrics, seen = Metrics(), list[Seen]()

    async def body(client: Client) -> None:
        for wire in ("dendrite", "btauth", "epistula"):
            assert (await client.send(ask(wire)))[0] == 200
        assert (await client.send(ask("dendrite", payload=b"no image " * 30)))[0] == 422
        assert (await client.send(ask("epistula", key=BOB)))[0] == 403

    standing = Standing(1, validator_permit=True, stake=5.0)
    against(
        body,
        rules=AccessRules(),
        standing=lambda hotkey: standing if hotkey == ALICE.ss58_address else None,
        observers=(metrics.observe, seen.append),
    )
    for wire in ("dendrite", "btauth", "epistula"):
        assert read(metrics, "requests_total", wire=wire, tier="validator", outcome="answered") == 1
    assert read(metrics, "requests_total", wire="dendrite", tier="validator", outcome="undecodable") == 1
    assert read(metrics, "requests_total", wire="epistula", tier="unproven", outcome="not_registered") == 1
    assert read(metrics, "request_seconds_count", modality="image") == 3
    for stage in ("body", "verify", "queue"):
        assert read(metrics, "stage_seconds_count", stage=stage) == 4  # the one that did not decode waited, too
    assert read(metrics, "stage_seconds_count", stage="decode") == 3
    assert read(metrics, "prediction_p_fake_bucket", modality="image", le="0.7") == 0
    assert read(metrics, "prediction_p_fake_bucket", modality="image", le="0.8") == 3
    assert read(metrics, "routes_total", route="trivial") == 3
    assert [one.outcome for one in seen].count("answered") == 3
    spent = sum(one.stages.get("queue", 0.0) for one in seen) / 1e3
    assert read(metrics, "stage_seconds_sum", stage="queue") == pytest.approx(spent)
    assert ALICE.ss58_address.encode() not in metrics.exposition()[0]


def test_gates_experts_and_the_merge_have_their_stages() -> None:
    metrics = Metrics()
    judge = Judge(build()[0])

    async def body(client: Client) -> None:
        assert (await client.send(ask()))[0] == 200

    try:
        against(body, judge, observers=(metrics.observe,))
    finally:
        judge.close()
    for stage in ("gate:face", "gate:text", "general", "second", "merge"):
        assert read(metrics, "stage_seconds_count", stage=stage) == 1
    assert read(metrics, "routes_total", route="general > second > merge:learned") == 1


def test_who_is_late_and_who_is_left_out() -> None:
    metrics = Metrics()
    experts = config().model_dump(mode="json")["experts"]
    experts["second"]["budget_ms"] = 60_000.0
    judge = Judge(build(config(experts=experts))[0])

    async def body(client: Client) -> None:
        assert (await client.send(ask()))[0] == 200

    try:
        against(body, judge, observers=(metrics.observe,))
    finally:
        judge.close()
    assert read(metrics, "partial_answers_total", modality="image") == 1
    assert read(metrics, "left_out_total", stage="second") == 1
    assert read(metrics, "routes_total", route="general > merge:learned") == 1


def test_the_deadline() -> None:
    metrics, held = Metrics(), Held()

    async def body(client: Client) -> None:
        assert (await client.send(ask()))[0] == 408
        held.go.set()

    against(body, held, queue=Limits(deadline_s=0.05), observers=(metrics.observe,))
    assert read(metrics, "deadline_misses_total", reason="late") == 1
    assert read(metrics, "deadline_misses_total", reason="overloaded") == 0
    assert read(metrics, "request_seconds_count", modality="image") == 1


def test_a_failing_detector_is_told_apart() -> None:
    class Fails:
        card = build()[0].card

        def predict(self, batch: Sequence[Media], *, deadline: float | None = None) -> list[Prediction]:
            raise ValueError("broken")

    metrics, judge = Metrics(), Judge(Fails())

    async def body(client: Client) -> None:
        assert (await client.send(ask()))[0] == 500

    try:
        against(body, judge, observers=(metrics.observe,))
    finally:
        judge.close()
    assert read(metrics, "failures_total", reason="detector") == 1
    assert read(metrics, "failures_total", reason="bug") == 0


def test_labels_that_the_caller_sends() -> None:
    metrics = Metrics()

    async def body(client: Client) -> None:
        for label in (0, 1, 2):
            request = challenge_request(
                "dendrite",
                key=ALICE,
                receiver=MINER.ss58_address,
                modality="image",
                payload=GOOD,
                timeout_s=9.0,
                uuid=str(uuid.uuid4()),
                label=label,
            )
            assert (await client.send(request))[0] == 200

    against(body, observers=(metrics.observe,))
    assert read(metrics, "labelled_total", modality="image", correct="true") == 2
    assert read(metrics, "labelled_total", modality="image", correct="false") == 1


def test_strange_words_make_no_series() -> None:
    metrics = Metrics()
    for number in range(1000):
        strange = f"x{number}"
        odd = dataclasses.replace(SEEN, wire=strange, tier=strange, outcome=strange, stages={strange: 1.0})  # type: ignore[arg-type]
        metrics.observe(dataclasses.replace(odd, prediction=None))
        route = (strange, f"late:{strange}", f"broken:{strange}", "frames:3")
        metrics.observe(dataclasses.replace(SEEN, prediction=dataclasses.replace(ANSWER, route=route)))
    assert read(metrics, "requests_total", wire="other", tier="other", outcome="other") == 1000
    for name, label in (("left_out", "stage"), ("broken", "stage"), ("routes", "route")):
        assert read(metrics, f"{name}_total", **{label: "other"}) == 1000 - 64
    families = {family.name: family for family in metrics.registry.collect()}
    assert max(len(family.samples) for family in families.values()) <= 65 * (16 + 4)


def test_a_flood_touches_one_counter_only() -> None:
    metrics = Metrics()
    before = len(metrics.exposition()[0].splitlines())
    for _ in range(100):
        metrics.observe(
            dataclasses.replace(SEEN, tier="unproven", modality="", outcome="bad_signature", prediction=None)
        )
    assert read(metrics, "requests_total", wire="epistula", tier="unproven", outcome="bad_signature") == 100
    assert len(metrics.exposition()[0].splitlines()) == before + 2


# Drift


def drifting(reference: Mapping[Modality, tuple[float, ...]] | None = None) -> Metrics:
    shares = {"image": (0.0,) * 7 + (1.0, 0.0, 0.0)} if reference is None else reference
    return Metrics(Sources(reference=lambda: shares), window=300)  # type: ignore[arg-type, return-value]


def test_drift_is_told_once_there_are_enough_answers() -> None:
    metrics = drifting()
    answers(metrics, 0.75, 199)
    assert math.isnan(read(metrics, "prediction_drift_psi", modality="image") or 0.0)
    answers(metrics, 0.75, 1)
    assert read(metrics, "prediction_drift_psi", modality="image") == 0.0
    assert math.isnan(read(metrics, "prediction_drift_psi", modality="video") or 0.0)


def test_drift_looks_at_the_last_answers_only() -> None:
    metrics = drifting()
    answers(metrics, 0.05, 300)
    assert (read(metrics, "prediction_drift_psi", modality="image") or 0.0) > 0.25
    answers(metrics, 0.75, 300)
    assert read(metrics, "prediction_drift_psi", modality="image") == 0.0
    assert read(metrics, "prediction_drift_answers", modality="image") == 300


def test_another_detector_starts_anew() -> None:
    metrics = drifting()
    answers(metrics, 0.05, 300)
    answers(metrics, 0.75, 1, detector="camo@2")
    assert read(metrics, "prediction_drift_answers", modality="image") == 1
    assert math.isnan(read(metrics, "prediction_drift_psi", modality="image") or 0.0)


def test_without_a_reference_there_is_no_drift() -> None:
    metrics = drifting({})
    answers(metrics, 0.05, 300)
    assert math.isnan(read(metrics, "prediction_drift_psi", modality="image") or 0.0)


# What is asked when somebody looks


def test_what_is_so_now() -> None:
    now = [100.0]
    age: list[float | None] = [7.0]
    weights = {"general": "npr@1.0.0", "face": "face@2.0.0"}
    report = ShadowReport(ShadowPlan("npr@2.0.0"), "running", judged=3, skipped=1, agreement=0.5)
    metrics = Metrics(
        Sources(
            queue_depth=lambda: 5,
            in_flight=lambda: 6,
            serving=lambda: False,
            snapshot_age_s=lambda: age[0],
            detector=lambda: "camo@abc",
            weights=lambda: weights,
            shadow=lambda: report,
            queue_limit=1024,
            deadline_s=8.0,
            snapshot_limit_s=3600.0,
        ),
        clock=lambda: now[0],
    )
    now[0] = 160.0
    expected = {
        "queue_depth": 5,
        "in_flight": 6,
        "serving": 0,
        "snapshot_age_seconds": 7,
        "queue_limit": 1024,
        "deadline_seconds": 8,
        "snapshot_age_limit_seconds": 3600,
        "uptime_seconds": 60,
        "shadow_judged": 3,
        "shadow_skipped": 1,
        "shadow_agreement": 0.5,
    }
    assert {name: read(metrics, name) for name in expected} == expected
    assert read(metrics, "shadow_mean_difference") is None
    assert read(metrics, "detector_info", name="camo", version="abc") == 1
    assert read(metrics, "weights_info", expert="general", name="npr", version="1.0.0") == 1
    weights["general"], age[0] = "npr@1.1.0", None
    assert read(metrics, "weights_info", expert="general", name="npr", version="1.1.0") == 1
    assert read(metrics, "weights_info", expert="general", name="npr", version="1.0.0") is None
    assert read(metrics, "snapshot_age_seconds") is None
    assert not metrics.healthy()


def test_a_source_that_raises_hides_its_own_figure_only(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> int:
        raise RuntimeError("no queue")

    metrics = Metrics(Sources(queue_depth=broken, in_flight=lambda: 3))
    assert read(metrics, "queue_depth") is None
    assert read(metrics, "in_flight") == 3
    assert "queue_depth could not be read" in caplog.text


def test_swaps() -> None:
    metrics = Metrics()
    for stage, accepted in (("golden", False), ("golden", False), ("done", True)):
        metrics.swapped(SwapReport(0.0, accepted, stage, "", "", "camo@1", "camo@2"))  # type: ignore[arg-type]
    assert read(metrics, "swaps_total", stage="golden", accepted="false") == 2
    assert read(metrics, "swaps_total", stage="done", accepted="true") == 1
    assert read(metrics, "swaps_total", stage="memory", accepted="false") == 0  # there before the first, for alerts


def test_two_miners_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.observe(SEEN)
    assert read(other, "requests_total", wire="epistula", tier="validator", outcome="answered") == 0


def test_the_exposition_is_what_prometheus_reads() -> None:
    metrics = Metrics(Sources(weights=lambda: {'odd"name\n': "a\\b@1"}))
    metrics.observe(SEEN)
    text, kind = metrics.exposition()
    assert kind.startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    assert {"process_resident_memory_bytes", "python_gc_collections", f"{PREFIX}_build_info"} <= set(families)
    (weights,) = families[f"{PREFIX}_weights_info"].samples
    assert weights.labels == {"expert": 'odd"name\n', "name": "a\\b", "version": "1"}
    buckets = [s for s in families[f"{PREFIX}_stage_seconds"].samples if s.name.endswith("_bucket")]
    assert [s.value for s in buckets if s.labels["le"] in ("0.0025", "0.005", "+Inf")] == [0, 1, 1]


def test_scrapes_while_requests_are_counted() -> None:
    """Nothing is lost, nothing raises, and every histogram adds up, also when detectors change meanwhile."""
    metrics = Metrics(Sources(reference=lambda: {"image": (1 / BINS,) * BINS}))
    stop, errors = threading.Event(), list[str]()
    scrapes = [0]

    def scrape() -> None:
        while not stop.is_set():
            for family in text_string_to_metric_families(metrics.exposition()[0].decode()):
                if family.name == f"{PREFIX}_prediction_drift_answers":
                    errors.extend(str(s) for s in family.samples if not 0 <= s.value <= 501)
            scrapes[0] += 1

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        while not scrapes[0]:
            answers(metrics, 0.5, 1)
        before = int(read(metrics, "prediction_p_fake_count", modality="image") or 0)
        for number in range(20):
            answers(metrics, number / 20, 200, detector=f"camo@{number % 3}")
    finally:
        stop.set()
        thread.join(30)
    assert not errors
    assert read(metrics, "prediction_p_fake_count", modality="image") == before + 4000


def test_counting_is_safe_while_the_loop_runs() -> None:
    """The observer is called by the server itself, on its loop: a hundred concurrent requests are a hundred."""
    metrics = Metrics()

    async def body(client: Client) -> None:
        statuses = await asyncio.gather(*(client.send(ask()) for _ in range(100)))
        assert {status for status, _, _ in statuses} == {200}

    against(body, observers=(metrics.observe,))
    assert read(metrics, "requests_total", wire="dendrite", tier="offline", outcome="answered") == 100
