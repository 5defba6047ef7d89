"""Plots as inline SVG, drawn by hand: no scripts, no fonts, no files, colours from the page's own light or dark theme.

Every function returns one complete ``<svg>`` element with a ``<title>`` and ``<desc>`` for screen readers. Colours are
CSS classes (``s0`` … ``s7`` for series, ``axis``, ``grid``, ``label``) that the page defines, so that one drawing fits
both themes; series also differ in dash pattern, so that nothing hangs on colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["bars", "histogram", "lines"]

Point = tuple[float, float]

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 20, 12, 44
_DASHES = ("", "7 3", "2 3", "10 3 2 3", "4 2", "1 3", "12 4", "6 2 1 2")


class _Axes:
    """A plotting area with linear or logarithmic x, linear y; knows how to turn data into SVG coordinates."""

    def __init__(self, x: Point, y: Point, *, log_x: bool = False) -> None:
        self._log = log_x
        x0, x1 = (math.log10(x[0]), math.log10(x[1])) if log_x else x
        self._x = (x0, x1 if x1 > x0 else x0 + 1.0)
        self._y = (y[0], y[1] if y[1] > y[0] else y[0] + 1.0)

    def px(self, value: float) -> float:
        v = math.log10(max(value, 1e-9)) if self._log else value
        share = (v - self._x[0]) / (self._x[1] - self._x[0])
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def py(self, value: float) -> float:
        share = (value - self._y[0]) / (self._y[1] - self._y[0])
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def path(self, points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{self.px(x):.1f} {self.py(y):.1f}" for x, y in points)

    def _x_ticks(self) -> list[float]:
        if not self._log:
            return _ticks(*self._x)
        return [10.0**e for e in range(math.ceil(self._x[0] - 1e-9), math.floor(self._x[1] + 1e-9) + 1)]

    def frame(self, x_name: str, y_name: str, *, x_ticks: bool = True) -> list[str]:
        """Grid, tick labels and axis names."""
        out = []
        for v in _ticks(*self._y):
            y = self.py(v)
            out.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            out.append(f'<text class="label" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{v:g}</text>')
        for v in self._x_ticks() if x_ticks else ():
            x = self.px(v)
            out.append(
                f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{self.py(self._y[0]):.1f}" y2="{_HEIGHT - 39}"/>'
            )
            out.append(f'<text class="label" x="{x:.1f}" y="{_HEIGHT - 26}" text-anchor="middle">{v:g}</text>')
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        floor = _HEIGHT - _BOTTOM
        out.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>')
        if x_name:
            out.append(
                f'<text class="label" x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_name)}</text>'
            )
        turn = f"translate(13 {(_TOP + floor) / 2}) rotate(-90)"
        out.append(f'<text class="label" transform="{turn}" text-anchor="middle">{escape(y_name)}</text>')
        return out


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values between `low` and `high`, steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _svg(title: str, description: str, body: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(body)}</svg>"
    )


def lines(
    title: str,
    series: Mapping[str, Sequence[Point]],
    *,
    x_name: str,
    y_name: str,
    x: Point,
    y: Point,
    log_x: bool = False,
    diagonal: bool = False,
) -> str:
    """One line per series; series without a point are left out but keep their colour.

    Args:
        title: what a screen reader says.
        series: points (x, y) by name, in drawing order; colour ``s0`` is the first.
        x_name, y_name: axis names with units.
        x, y: ranges of the axes.
        log_x: logarithmic x; the range must be positive.
        diagonal: also draws y = x, the chance line of an ROC plot.
    """
    axes = _Axes(x, y, log_x=log_x)
    body = axes.frame(x_name, y_name)
    if diagonal:
        body.append(f'<path class="chance" d="{axes.path([(x[0], x[0]), (x[1], x[1])])}"/>')
    # The first series is ours: drawn last, it stays on top.
    for k, (name, points) in reversed(list(enumerate(series.items()))):
        if points:
            dash = f' stroke-dasharray="{_DASHES[k % 8]}"' if _DASHES[k % 8] else ""
            body.append(
                f'<path class="line s{k % 8}"{dash} d="{axes.path(points)}"><title>{escape(name)}</title></path>'
            )
    ends = "; ".join(f"{name} ends at {points[-1][1]:.3g}" for name, points in series.items() if points)
    return _svg(title, ends or "no data", body)


def histogram(title: str, groups: Mapping[str, Sequence[float]], *, x_name: str, bins: int = 20) -> str:
    """Overlaid histograms of values in [0, 1], each group scaled to a share of itself so that 50:50 is not needed."""
    counts = {name: _bin(values, bins) for name, values in groups.items()}
    top = max((max(c) for c in counts.values()), default=0.0)
    axes = _Axes((0.0, 1.0), (0.0, top or 1.0))
    body = axes.frame(x_name, "share of the group")
    width = 1.0 / bins / max(1, len(groups))
    for k, (name, shares) in enumerate(counts.items()):
        for b, share in enumerate(shares):
            if share:
                left, right = axes.px(b / bins + k * width), axes.px(b / bins + (k + 1) * width)
                where = f'x="{left:.1f}" y="{axes.py(share):.1f}" width="{right - left:.1f}"'
                height = axes.py(0.0) - axes.py(share)
                body.append(
                    f'<rect class="bar s{k % 8}" {where} height="{height:.1f}">'
                    f"<title>{escape(name)}: {share:.0%} in [{b / bins:.2f}, {(b + 1) / bins:.2f})</title></rect>"
                )
    about = "; ".join(f"{name}: {len(v)} values, mean {sum(v) / len(v):.2f}" for name, v in groups.items() if v)
    return _svg(title, about or "no data", body)


def _bin(values: Sequence[float], bins: int) -> list[float]:
    counts = [0] * bins
    for v in values:
        counts[min(bins - 1, max(0, int(v * bins)))] += 1
    return [c / len(values) for c in counts] if values else [0.0] * bins


def bars(title: str, groups: Mapping[str, Mapping[str, float]], *, y_name: str) -> str:
    """Grouped bars with values in [0, 1].

    Args:
        title: what a screen reader says.
        groups: label under the axis → (series → value); every series keeps one colour across the groups.
        y_name: name of the value.
    """
    axes = _Axes((0.0, 1.0), (0.0, 1.0))
    body = axes.frame("", y_name, x_ticks=False)
    series = list(dict.fromkeys(name for values in groups.values() for name in values))
    slot = 1.0 / max(1, len(groups))
    width = slot * 0.8 / max(1, len(series))
    for g, (label, values) in enumerate(groups.items()):
        start = g * slot + slot * 0.1
        for k, name in enumerate(series):
            if name in values:
                left, right = axes.px(start + k * width), axes.px(start + (k + 1) * width)
                y = axes.py(values[name])
                body.append(
                    f'<rect class="bar s{k % 8}" x="{left:.1f}" y="{y:.1f}" width="{right - left - 1:.1f}" '
                    f'height="{axes.py(0.0) - y:.1f}"><title>{escape(label)}, {escape(name)}: {values[name]:.3f}'
                    f"</title></rect>"
                )
        middle = axes.px(g * slot + slot / 2)
        room = int(slot * (_WIDTH - _LEFT - _RIGHT) / 6.5)  # characters; 6.5 px is what one takes at 12 px
        short = label if len(label) <= room else label[: max(1, room - 1)] + "…"
        body.append(
            f'<text class="label" x="{middle:.1f}" y="{_HEIGHT - 26}" text-anchor="middle">{escape(short)}</text>'
        )
    about = "; ".join(
        f"{label}: " + ", ".join(f"{name} {value:.2f}" for name, value in values.items())
        for label, values in groups.items()
    )
    return _svg(title, about or "no data", body)
