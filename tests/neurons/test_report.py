"""report.json and report.html: right figures, nothing from outside, everything escaped, readable without colours."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from detectors.types import Label
from neurons.ledger import Ledger, profiles
from neurons.report import html, worst, write
from neurons.summary import SMOKE_TEST, TIMES, About, Trace, stable, summarise
from tests.detectors.fixtures_media import encoded, photo
from tests.neurons.simkit import exchange

EVIL = "<script>alert('1')</script>&\"'"
RUN = {
    "command": f"deepfake-miner simulate --out '{EVIL}'",
    "started": "2025-01-01T00:00:00+00:00",
    "seconds": 1.5,
    "versions": {"python": "3.11"},
}


def ledger(count: int = 24) -> Ledger:
    book = Ledger(("ours", "half", "mute", EVIL), profiles(["sn34-2.0", "sn34-2.1"]))
    for k in range(count):
        label = Label(k % 3)
        right = float(label > 0)
        ours = abs(right - (0.9 if k % 8 == 0 else 0.2))  # wrong at every eighth
        replies = {"ours": ours, "half": 0.5, "mute": None, EVIL: 1.0}
        book.pay(exchange(k, label, replies, "video" if k % 4 == 3 else "image", EVIL if k % 2 else "source"))
    return book


def report_of(book: Ledger, **about: Any) -> dict[str, Any]:
    traces = {"ours": {k: Trace(("gate:face", f"expert-{k % 2}", EVIL), {EVIL: 0.25}) for k in range(24)}}
    return summarise(book, About(seed=7, data=EVIL, run=RUN, **about), traces)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return report_of(ledger(), smoke_test=True, routes_note="looked up")


@pytest.fixture(scope="module")
def page(report: dict[str, Any]) -> str:
    return html(report, {row["index"]: encoded(photo(16, 16), "JPEG") for row in worst(report)})


def test_the_figures_asked_for_are_there(report: dict[str, Any]) -> None:
    ours = report["miners"]["ours"]
    assert {"reward", "mcc", "accuracy", "latency_ms", "auc", "brier", "score", "weight", "routes"} <= set(ours)
    assert ours["accuracy"] == pytest.approx(21 / 24)
    assert ours["latency_ms"] == {"p50": 10.0, "p99": 10.0, "max": 10.0}
    assert ours["interval"]["reward"][0] < ours["reward"] < ours["interval"]["reward"][1]
    assert ours["interval"]["accuracy"][0] < ours["accuracy"] < ours["interval"]["accuracy"][1]
    assert sum(ours["routes"].values()) == 24
    assert set(ours["profiles"]) == {"sn34-2.0", "sn34-2.1"}
    assert sum(slice_["count"] for slice_ in ours["by"]["source"].values()) == 24
    assert report["data"]["note"] == SMOKE_TEST
    assert report["challenges"]["labels"] == {"real": 8, "semisynthetic": 8, "synthetic": 8}


def test_silence_is_counted_and_paid_nothing(report: dict[str, Any]) -> None:
    mute = report["miners"]["mute"]
    assert (mute["answered"], mute["reward"], mute["accuracy"], mute["auc"]) == (0, 0.0, 0.0, None)
    assert mute["failures"] == {"timeout": 24}
    assert mute["latency_ms"] == {"p50": None, "p99": None, "max": None}


def test_the_reference_is_compared_with_everybody_else(report: dict[str, Any]) -> None:
    assert report["reference"] == "ours"
    assert set(report["comparison"]) == {"half", "mute", EVIL}
    half = report["comparison"]["half"]
    assert half["reward"] == pytest.approx(report["miners"]["ours"]["reward"] - report["miners"]["half"]["reward"])
    assert 0 < half["interval"][0] < half["reward"] < half["interval"][1]


def test_worst_mistakes_are_the_surest_wrong_ones_first(report: dict[str, Any]) -> None:
    wrong = worst(report)
    assert [row["index"] for row in wrong] == [0, 8, 16]
    assert [row["index"] for row in worst(report, 1)] == [0]
    assert worst({**report, "reference": "mute"}) == []
    assert len(worst({**report, "reference": EVIL})) == 8  # always fake: every real one


def test_the_same_run_gives_the_same_report(report: dict[str, Any]) -> None:
    again = report_of(ledger(), smoke_test=True, routes_note="looked up")
    assert json.dumps(report, sort_keys=True) == json.dumps(again, sort_keys=True)


def test_stable_takes_out_exactly_the_measured_times(report: dict[str, Any]) -> None:
    text = json.dumps(stable(report))
    for key in TIMES:
        assert f'"{key}":' not in text
        assert f'"{key}":' in json.dumps(report)
    assert stable(report)["rows"][0]["sha256"] == report["rows"][0]["sha256"]


def test_a_run_without_challenges_can_be_summed_up() -> None:
    empty = summarise(Ledger(("ours",), profiles(["sn34-2.0"])), About(seed=0, data="none", run=RUN))
    assert empty["miners"]["ours"]["reward"] == 0.0
    assert "None: every answer" in html(empty, {})


class Page(HTMLParser):
    """Collects what matters and checks that tags are balanced."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def parsed(text: str) -> Page:
    parser = Page()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_is_self_contained(page: str) -> None:
    tags = parsed(page).tags
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in tags}
    for tag, attributes in tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href", "xlink:href", "action", "srcset", "poster"):
            assert (attributes.get(name) or "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
    assert not re.search(r"https?://|@import|url\(", page)


def test_every_text_is_escaped(page: str) -> None:
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    # In names of miners, sources, routes, experts, the command and the description of the data alike.
    assert page.count("&lt;script&gt;") > 10


def test_the_page_can_be_read_by_everyone(page: str) -> None:
    tags = parsed(page).tags
    assert ("html", {"lang": "en"}) in tags
    assert any(tag == "meta" and attributes.get("name") == "viewport" for tag, attributes in tags)
    assert "prefers-color-scheme: dark" in page
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert len(images) == 3
    assert all((attributes.get("alt") or "").startswith("Challenge") for attributes in images)
    drawings = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(drawings) == 6
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in drawings)
    headers = [attributes for tag, attributes in tags if tag == "th"]
    assert headers
    assert all(attributes.get("scope") in {"col", "row"} for attributes in headers)
    assert sum(tag == "h1" for tag, _ in tags) == 1


def luminance(colour: str) -> float:
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_have_enough_contrast_in_both_themes(page: str) -> None:
    themes = re.findall(r":root \{(.*?)\}", page, re.S)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", theme))
        paper = luminance(colours["paper"])
        for name, least in {"ink": 7.0, "soft": 4.5, **{f"c{k}": 4.5 for k in range(8)}}.items():
            light, dark = sorted((paper, luminance(colours[name])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= least, name
        light, dark = sorted((luminance(colours["warnbg"]), luminance(colours["warn"])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_the_page_says_what_was_used_and_how_to_repeat_it(page: str, report: dict[str, Any]) -> None:
    assert "Smoke test" in page
    assert "deepfake-miner simulate --out" in page
    assert "seed <strong>7</strong>" in page
    assert "P(fake) = 0.900" in page
    assert "expert-0" in page
    assert "Smoke test" not in html(report_of(ledger()) | {"data": {**report["data"], "note": ""}}, {})


def test_both_files_are_written_whole(tmp_path: Path, report: dict[str, Any]) -> None:
    as_json, as_html = write(tmp_path / "new" / "folder", report, {})
    assert json.loads(as_json.read_text(encoding="utf-8")) == report
    assert as_html.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(p.name for p in as_json.parent.iterdir()) == ["report.html", "report.json"]
