# SPDX-License-Identifier: GPL-3.0-or-later
"""The chart of a run: one SVG file that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Callable, Sequence
from xml.sax.saxutils import escape

from report import Result, percentile

_WIDTH, _HEIGHT = 1080, 416
_PANEL, _PLOT_W, _PLOT_H, _TOP = 350, 270, 230, 90
_COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#8f6bb3")


@dataclass(frozen=True)
class Series:
    name: str
    points: Sequence[tuple[float, float]]
    colour: str


def draw(result: Result) -> str:
    """Committed operations over time, latencies, and memory."""
    etcd = result.etcd
    ours, theirs = _COLOURS[:2]
    rates = [Series("transfers", _timeline(result.saturation.timeline), ours)]
    delays = [Series("transfers at half rate", _quantiles(result.half_rate.latencies_ms), ours)]
    if etcd:
        rates.append(Series(f"etcd {etcd.version} puts", _timeline(etcd.puts.timeline), theirs))
        delays.append(Series("etcd puts, saturated", _quantiles(etcd.puts.latencies_ms), theirs))
    memory = [
        Series(name, [(at, size / 2**20) for at, size in samples], colour)
        for (name, samples), colour in zip(result.memory.items(), _COLOURS)
    ]
    head = (
        f"Holdfast {result.version}: {result.saturation.rate:.0f} tx/s committed, "
        f"p50 {percentile(result.half_rate.latencies_ms, 50):.0f} ms at half that rate"
    )
    machine = result.machine
    sub = (
        f"four validators on loopback, {machine['cores']} cores ({machine['processor']}), "
        f"{machine['file_system']}, {result.started}; ceiling of signature checks "
        f"{result.ceiling:.0f} tx/s; etcd {'beside it' if etcd else 'not run'}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        f"<title>{escape(head)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="20" y="30" font-size="18">{escape(head)}</text>',
        f'<text x="20" y="50" fill="#666">{escape(sub)}</text>',
        _panel(0, "committed per second, saturated", "seconds", rates),
        _panel(1, "% of operations done within", "milliseconds", delays, logarithmic=True),
        _panel(2, "resident memory, MiB", "seconds", memory),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _timeline(counts: Sequence[int]) -> list[tuple[float, float]]:
    return [(second + 0.5, float(count)) for second, count in enumerate(counts)]


def _quantiles(latencies: Sequence[float]) -> list[tuple[float, float]]:
    return [(percentile(latencies, p / 2), p / 2) for p in range(1, 200)]


def _panel(
    place: int, title: str, unit: str, series: Sequence[Series], *, logarithmic: bool = False
) -> str:
    left = 60 + place * _PANEL
    xs = [x for one in series for x, _ in one.points]
    top = max((y for one in series for _, y in one.points), default=1.0)
    y_ticks = _ticks(top)
    if logarithmic:
        low, high = floor(log10(max(min(xs), 0.1))), ceil(log10(max(*xs, 1.0)))
        x_ticks = [10.0**power for power in range(low, max(high, low + 1) + 1)]
        to_x = _scale(log10(x_ticks[0]), log10(x_ticks[-1]), left, left + _PLOT_W)
        place_x = lambda x: to_x(log10(max(x, x_ticks[0])))  # noqa: E731 -- two forms of one thing
    else:
        x_ticks = _ticks(max(xs, default=1.0))
        place_x = _scale(0.0, x_ticks[-1], left, left + _PLOT_W)
    place_y = _scale(0.0, y_ticks[-1], _TOP + _PLOT_H, _TOP)
    parts = [f'<text x="{left}" y="{_TOP - 12}" font-weight="bold">{escape(title)}</text>']
    for tick in y_ticks:
        y = place_y(tick)
        parts.append(f'<path d="M{left} {y:.1f}h{_PLOT_W}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        x, y = place_x(tick), _TOP + _PLOT_H
        parts.append(f'<path d="M{x:.1f} {y}v5" stroke="#222"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 18}" text-anchor="middle">{tick:g}</text>')
    x, y = left + _PLOT_W, _TOP + _PLOT_H + 34
    parts.append(f'<text x="{x}" y="{y}" text-anchor="end" fill="#666">{unit}</text>')
    for i, one in enumerate(series):
        line = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in one.points)
        shape = f'<polyline points="{line}" fill="none" stroke="{one.colour}" stroke-width="2"/>'
        parts.append(shape)
        x, y = left + (i % 2) * 140, _TOP + _PLOT_H + 52 + (i // 2) * 16
        name = f'<text x="{x}" y="{y}" fill="{one.colour}">{escape(one.name)}</text>'
        parts.append(name)
    return "\n".join(parts)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _ticks(top: float) -> list[float]:
    """From 0 to at least `top`, in round steps."""
    rough = max(top, 1e-9) / 4
    unit = 10.0 ** floor(log10(rough))
    step = next(unit * f for f in (1, 2, 2.5, 5, 10) if unit * f >= rough)
    return [step * i for i in range(ceil(top / step) + 1)]
