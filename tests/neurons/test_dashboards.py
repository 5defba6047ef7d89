"""The dashboard and the alerts that ship name metrics and labels that a miner has, and are what their readers take."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from neurons.operations import ShadowPlan, ShadowReport
from neurons.seen import Seen
from neurons.setting_groups import Telemetry
from neurons.telemetry import PREFIX, Metrics, Sources
from tests.neurons.test_telemetry import ANSWER

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
DASHBOARD: dict[str, Any] = json.loads((CONFIGS / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
ALERTS: list[dict[str, Any]] = yaml.safe_load((CONFIGS / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))[
    "groups"
]
RULES: list[dict[str, Any]] = [rule for group in ALERTS for rule in group["rules"]]
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

_TARGET = {"instance", "job"}  # what Prometheus itself puts on every series
_OWN = {"up": _TARGET}
# Words of PromQL that may stand where a metric could; any other word is taken for a metric.
_WORDS = {
    "sum",
    "max",
    "by",
    "on",
    "and",
    "rate",
    "increase",
    "changes",
    "histogram_quantile",
    "offset",
    "label_values",
}
_DURATION = re.compile(r"\b\d+[smhd]\b|\[[^\]]*\]")
_GROUPS = re.compile(r"\b(by|on)\s*\(([^)]*)\)")
_MATCHERS = re.compile(r"(\w+)\s*\{([^}]*)\}")


def labels_of() -> dict[str, set[str]]:
    """Labels by the name of every series of a miner in use, Prometheus' own included."""
    shadow = ShadowReport(ShadowPlan("a@1"), "running", agreement=1.0, mean_difference=0.0)
    metrics = Metrics(
        Sources(
            snapshot_age_s=lambda: 1.0, detector=lambda: "camo@1", weights=lambda: {"a": "a@1"}, shadow=lambda: shadow
        )
    )
    for outcome in ("answered", "late", "bug"):
        route = ("general", "late:second", "broken:third")
        prediction = dataclasses.replace(ANSWER, route=route)
        metrics.observe(
            Seen("1-1", 0.0, "/", "dendrite", "", "validator", "image", outcome, 200, 0.1, {"body": 1.0}, prediction, 1)
        )
    known = {name: set(labels) for name, labels in _OWN.items()}
    for family in metrics.registry.collect():
        for sample in family.samples:
            known.setdefault(sample.name, set(_TARGET)).update(sample.labels)
    return known


KNOWN = labels_of()


def named(expr: str) -> Iterator[tuple[str, set[str]]]:
    """Every metric of an expression with the labels that it is selected by."""
    matched: dict[str, set[str]] = {}
    for name, inside in _MATCHERS.findall(expr):
        matched.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=|!)", inside))
    bare = _GROUPS.sub(" ", re.sub(r"\{[^}]*\}", " ", _DURATION.sub(" ", expr)))
    for word in re.findall(r"[a-zA-Z_]\w*", bare):
        if word not in _WORDS and word != "instance":
            yield word, matched.get(word, set())


def wrong(expr: str) -> list[str]:
    """What an expression names that is not there."""
    found = [f"no metric {name}" for name, _ in named(expr) if name not in KNOWN]
    found += [f"{name} has no {label}" for name, labels in named(expr) for label in labels - KNOWN.get(name, labels)]
    metrics = [name for name, _ in named(expr)]
    grouped = {label.strip() for _, inside in _GROUPS.findall(expr) for label in inside.split(",")}
    found += [f"nothing has {label}" for label in grouped if not any(label in KNOWN.get(name, ()) for name in metrics)]
    if not metrics or any(expr.count(opening) != expr.count(closing) for opening, closing in ("()", "[]", "{}")):
        found.append("no expression")
    return found


def targets() -> Iterator[tuple[str, str]]:
    for panel in PANELS:
        for number, target in enumerate(panel["targets"]):
            yield f"{panel['title']} {number}", target["expr"]


EXPRESSIONS: dict[str, str] = {
    **dict(targets()),
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{f"variable {v['name']}": v["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"},
    **{f"annotation {a['name']}": a["expr"] for a in DASHBOARD["annotations"]["list"]},
}


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_every_metric_and_label_is_there(where: str) -> None:
    assert wrong(EXPRESSIONS[where]) == []


@pytest.mark.parametrize(
    ("expr", "words"),
    [
        (f"{PREFIX}_request_total", "no metric"),
        (f'{PREFIX}_requests_total{{hotkey="5x"}}', "has no hotkey"),
        (f'{PREFIX}_requests_total{{tier="x",hotkey!~"5x"}}', "has no hotkey"),
        (f"sum by (stage) (rate({PREFIX}_requests_total[5m]))", "nothing has stage"),
        (f"sum(rate({PREFIX}_requests_total[5m])", "no expression"),
    ],
)
def test_the_check_finds_mistakes(expr: str, words: str) -> None:
    assert words in " ".join(wrong(expr))


def test_the_dashboard_is_one() -> None:
    assert DASHBOARD["title"]
    assert DASHBOARD["uid"]
    assert DASHBOARD["schemaVersion"] >= 36
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids) > 20
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: str(panel["title"]))
def test_a_panel(panel: Mapping[str, Any]) -> None:
    assert panel["type"] in {"timeseries", "stat", "table", "heatmap"}
    assert panel["description"]
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references) > 0
    assert all(target["expr"] for target in panel["targets"])
    # No address or data source of ours in it: the one that is chosen counts.
    assert panel["datasource"]["uid"] == "${datasource}"


def test_panels_do_not_overlap_and_fill_the_width() -> None:
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert 0 <= at["x"] < at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not places & cells
        places |= cells
    height = max(y for _, y in places) + 1
    assert len(places) == 24 * height


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert(rule: Mapping[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[smh]", rule["for"])
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description"}
    for text in rule["annotations"].values():
        # What a template shows must be on the result of the expression.
        for label in re.findall(r"\$labels\.(\w+)", text):
            assert label in ("instance", "modality") or f"instance, {label}" in rule["expr"]
        assert text.count("{{") == text.count("}}")


def test_alerts_cover_what_is_promised() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    named_anywhere = {name for rule in RULES for name, _ in named(rule["expr"])}
    for metric in (
        "failures_total",
        "deadline_misses_total",
        "request_seconds_bucket",
        "deadline_seconds",
        "snapshot_age_seconds",
        "snapshot_age_limit_seconds",
        "requests_total",
        "swaps_total",
        "prediction_drift_psi",
        "queue_depth",
        "queue_limit",
    ):
        assert f"{PREFIX}_{metric}" in named_anywhere
    assert {"process_resident_memory_bytes", "process_start_time_seconds", "up"} <= named_anywhere


def test_every_series_that_an_increase_is_told_of_is_there_from_the_start() -> None:
    """Prometheus sees no increase where a series begins: the first failure would be missed."""
    fresh = {sample.name for family in Metrics().registry.collect() for sample in family.samples}
    for rule in RULES:
        for name in re.findall(r"increase\((\w+)", rule["expr"]):
            assert name in fresh


def test_the_scrape_example_fits_the_defaults() -> None:
    scrape = yaml.safe_load((CONFIGS / "prometheus" / "scrape.yml").read_text(encoding="utf-8"))
    (job,) = scrape["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"{Telemetry().ip}:{Telemetry().port}"]
    assert scrape["rule_files"] == ["alerts.yml"]
    for rule in RULES:
        assert set(re.findall(r'job="([^"]*)"', rule["expr"])) <= {job["job_name"]}
