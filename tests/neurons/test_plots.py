"""The drawings: well-formed, inside their frame, escaped, and where the data says."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest

from neurons.plots import bars, histogram, lines

EVIL = "<b>&\"'"


def drawn(svg: str, tag: str, kind: str) -> list[ET.Element]:
    root = ET.fromstring(svg)
    return [e for e in root if e.tag == tag and e.get("class", "").startswith(kind)]


def points(element: ET.Element) -> list[tuple[float, float]]:
    pairs = re.findall(r"([\d.-]+) ([\d.-]+)", element.get("d", ""))
    return [(float(x), float(y)) for x, y in pairs]


def line(series: dict[str, Sequence[tuple[float, float]]], **options: bool) -> str:
    return lines("title", series, x_name="x", y_name="y", x=(1.0, 100.0), y=(0.0, 1.0), **options)


def test_lines_go_where_the_data_says() -> None:
    (path,) = drawn(line({"a": [(1.0, 0.0), (100.0, 1.0)]}), "path", "line")
    (x0, y0), (x1, y1) = points(path)
    assert x0 < x1
    assert y0 > y1  # up is less in SVG
    assert 0 < x0 < x1 < 640
    assert 0 < y1 < y0 < 300


def test_a_logarithmic_axis_puts_ten_in_the_middle_of_one_and_a_hundred() -> None:
    (path,) = drawn(line({"a": [(1.0, 0.0), (10.0, 0.0), (100.0, 0.0)]}, log_x=True), "path", "line")
    xs = [x for x, _ in points(path)]
    assert xs[1] == pytest.approx((xs[0] + xs[2]) / 2, abs=0.1)


def test_empty_series_keep_the_colours_of_the_others() -> None:
    (path,) = drawn(line({"none": [], "some": [(1.0, 0.5), (2.0, 0.5)]}), "path", "line")
    assert path.get("class") == "line s1"
    assert "no data" in line({"none": []})


def test_the_first_series_is_on_top_and_all_have_their_own_dashes() -> None:
    found = drawn(line({name: [(1.0, 0.5), (2.0, 0.5)] for name in "abc"}), "path", "line")
    assert [e.get("class") for e in found] == ["line s2", "line s1", "line s0"]
    assert len({e.get("stroke-dasharray") for e in found}) == 3


def test_histograms_show_shares_of_each_group() -> None:
    svg = histogram("title", {"real": [0.01] * 3 + [0.99], "fake": [1.0]}, x_name="P(fake)")
    found = {e.get("class", "")[-2:] + str(round(float(e.get("height", 0)))) for e in drawn(svg, "rect", "bar")}
    full = max(float(e.get("height", 0)) for e in drawn(svg, "rect", "bar"))
    assert found == {f"s0{round(full * 0.75)}", f"s0{round(full * 0.25)}", f"s1{round(full)}"}


@pytest.mark.parametrize("groups", [{}, {"real": []}, {"real": [], "fake": [0.0, 1.0]}])
def test_histograms_take_what_is_missing(groups: dict[str, list[float]]) -> None:
    ET.fromstring(histogram("title", groups, x_name="x"))


def test_bars_keep_one_colour_a_series_and_shorten_long_names() -> None:
    svg = bars("title", {f"a very long name {k}": {"a": 0.5, "b": 1.0} for k in range(8)}, y_name="accuracy")
    found = drawn(svg, "rect", "bar")
    assert len(found) == 16
    assert {e.get("class") for e in found} == {"bar s0", "bar s1"}
    assert all(float(e.get("x", 0)) + float(e.get("width", 0)) < 640 for e in found)
    assert any((e.text or "").endswith("…") for e in ET.fromstring(svg) if e.tag == "text")
    ET.fromstring(bars("title", {}, y_name="accuracy"))


def test_texts_are_escaped() -> None:
    for svg in (
        lines(EVIL, {EVIL: [(0.0, 0.0), (1.0, 1.0)]}, x_name=EVIL, y_name=EVIL, x=(0.0, 1.0), y=(0.0, 1.0)),
        histogram(EVIL, {EVIL: [0.5]}, x_name=EVIL),
        bars(EVIL, {EVIL: {EVIL: 0.5}}, y_name=EVIL),
    ):
        assert "<b>" not in svg
        root = ET.fromstring(svg)
        assert root.get("aria-label") == EVIL
        assert root[0].text == EVIL
