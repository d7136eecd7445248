"""When what ran: a bar per attempt at a job, coloured by rule, in lanes per host and GPU.

Long times in which nothing ran are cut out, so that a workflow that was started on two days can be
read as well as one that ran through.
"""

import heapq
import io
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from emm.attempts import FINISHED
from emm.figures.style import GUIDE, colours, paper
from emm.usage.account import Attempt
from emm.usage.records import RUNNING
from emm.usage.totals import duration

WIDTH, DPI = 10.0, 150  # inches, pixels per inch
LANE, TALL = 0.22, 14.0  # inches: a lane, and all of them at most
GAP, GAP_SECONDS = 0.05, 300  # of the time that is drawn: gaps above both are cut
THIN = 0.003  # of the time that is drawn: bars that a white edge would hide
LABEL = 0.13  # inches between labels of hosts
TOLD = 8  # gaps whose length is told, where there are no more
UNKNOWN = "host not logged"
UNITS = ((172_800, 86_400, "days"), (7_200, 3_600, "hours"), (120, 60, "minutes"), (0, 1, "s"))


@dataclass(frozen=True)
class Lanes:
    """Attempts of a GPU, or of a host without one: those in a lane do not overlap."""

    label: str
    lanes: tuple[tuple[Attempt, ...], ...]


def pack(attempts: Iterable[Attempt]) -> list[Lanes]:
    """Lanes per host and GPU, as few as can be; hosts by name, attempts by start."""
    groups: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        groups[attempt.host or "", attempt.gpu_id or ""].append(attempt)
    numbers: dict[str, int] = defaultdict(int)
    found = []
    for host, gpu in sorted(groups):
        numbers[host] += bool(gpu)
        label = f"{host or UNKNOWN}, GPU {numbers[host]}" if gpu else host or UNKNOWN
        found.append(Lanes(label, _lanes(groups[host, gpu])))
    return found


def _lanes(attempts: Iterable[Attempt]) -> tuple[tuple[Attempt, ...], ...]:
    """Each attempt in the lane that has been free for longest, or in a new one."""
    lanes: list[list[Attempt]] = []
    free: list[tuple[float, int]] = []
    for attempt in sorted(attempts, key=lambda a: a.start):
        if free and free[0][0] <= attempt.start:
            _, lane = heapq.heappop(free)
        else:
            lane = len(lanes)
            lanes.append([])
        lanes[lane].append(attempt)
        heapq.heappush(free, (attempt.end, lane))
    return tuple(tuple(lane) for lane in lanes)


def busy_spans(attempts: Iterable[Attempt]) -> list[tuple[float, float]]:
    """Times in which something ran, without the gaps that are worth cutting out."""
    spans: list[list[float]] = []
    for start, end in sorted((a.start, a.end) for a in attempts):
        if spans and start <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], end)
        else:
            spans.append([start, end])
    least = max(GAP * sum(end - start for start, end in spans), GAP_SECONDS)
    joined: list[list[float]] = []
    for start, end in spans:
        if joined and start - joined[-1][1] <= least:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    return [(start, end) for start, end in joined]


def draw(attempts: Sequence[Attempt]) -> bytes:
    """The picture as PNG of all attempts whose times are known; an empty one says so."""
    with paper():
        figure = _figure([attempt for attempt in attempts if attempt.start is not None])
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()


def _figure(attempts: Sequence[Attempt]) -> Figure:
    groups = pack(attempts)
    count = sum(len(group.lanes) for group in groups)
    height = min(LANE, TALL / max(count, 1))
    figure = Figure(figsize=(WIDTH, max(height * count, LANE) + 1.0), layout="constrained", dpi=DPI)
    axes = figure.add_subplot()
    if not attempts:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "Of no attempt is known when it ran.", ha="center", va="center")
        return figure
    spans = busy_spans(attempts)
    unit, word = next((size, word) for least, size, word in UNITS if _length(spans) >= least)
    _bars(axes, groups, spans, unit)
    _label_lanes(axes, groups, height)
    _label_time(axes, spans, unit, word)
    _legend(figure, attempts)
    return figure


def _length(spans: Iterable[tuple[float, float]]) -> float:
    return sum(end - start for start, end in spans)


def _positions(times: Sequence[float], spans: Sequence[tuple[float, float]], unit: float):
    """Where times are drawn: the time in which something ran before them."""
    lengths = np.cumsum([0.0, *(end - start for start, end in spans)])
    places = [place for pair in pairwise(lengths) for place in pair]
    return np.interp(times, np.ravel(spans), places) / unit


def _bars(
    axes: Axes, groups: Iterable[Lanes], spans: Sequence[tuple[float, float]], unit: float
) -> None:
    """A bar per attempt; a line at the end of those that ended early, pale ones that run."""
    lanes = [lane for group in groups for lane in group.lanes]
    placed = [(attempt, number) for number, lane in enumerate(lanes) for attempt in lane]
    starts = _positions([attempt.start for attempt, _ in placed], spans, unit)
    ends = _positions([attempt.end for attempt, _ in placed], spans, unit)
    shades = _shades(attempt for attempt, _ in placed)
    corners = [
        [(x0, y + 0.1), (x1, y + 0.1), (x1, y + 0.9), (x0, y + 0.9)]
        for x0, x1, (_, y) in zip(starts, ends, placed, strict=True)
    ]
    faces = [(*shades[a.rule], 0.45 if a.outcome == RUNNING else 1.0) for a, _ in placed]
    thin = ends - starts < THIN * _length(spans) / unit
    edges = [face if narrow else "white" for face, narrow in zip(faces, thin, strict=True)]
    bars = PolyCollection(corners, facecolors=faces, edgecolors=edges, linewidths=0.4)
    axes.add_collection(bars)
    early = [n for n, (a, _) in enumerate(placed) if a.outcome not in (FINISHED, RUNNING)]
    rows = np.array([placed[n][1] for n in early])
    axes.vlines(ends[early], rows + 0.02, rows + 0.98, colors="black", linewidths=1.2)
    axes.set(xlim=(0, _length(spans) / unit or 1), ylim=(len(lanes), 0))


def _shades(attempts: Iterable[Attempt]) -> dict[str, tuple[float, float, float]]:
    """A colour per rule, the same for the rules of every workflow."""
    rules = dict.fromkeys(("train", "sample", "score"))
    return colours([*rules, *sorted({attempt.rule for attempt in attempts} - set(rules))])


def _label_lanes(axes: Axes, groups: Sequence[Lanes], height: float) -> None:
    """Names of hosts and GPUs, as far as there is room, and lines between them."""
    top, last, ticks = 0, -LABEL, []
    for group in groups:
        middle = (top + len(group.lanes) / 2) * height
        if middle - last >= LABEL:
            ticks.append((middle / height, group.label))
            last = middle
        top += len(group.lanes)
        if len(groups) > 1:
            axes.axhline(top, color=GUIDE, linewidth=0.3)
    axes.set_yticks([place for place, _ in ticks], [label for _, label in ticks])
    axes.tick_params(axis="y", length=0)


def _label_time(axes: Axes, spans: Sequence[tuple[float, float]], unit: float, word: str) -> None:
    """Time in which something ran, with a dotted line wherever some was cut out."""
    gaps = [start - end for (_, end), (start, _) in pairwise(spans)]
    places = _positions([end for _, end in spans[:-1]], spans, unit)
    for place, gap in zip(places, gaps, strict=True):
        axes.axvline(place, color="black", linestyle=":", linewidth=0.9)
        if len(gaps) <= TOLD:
            axes.text(place, 0, duration(gap), ha="center", va="bottom", fontsize="x-small")
    cut = "; dotted: times without jobs are cut out" if len(spans) > 1 else ""
    first, last = (
        time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
        for moment in (spans[0][0], spans[-1][1])
    )
    axes.set_xlabel(f"{word}, from {first} to {last}{cut}")


def _legend(figure: Figure, attempts: Sequence[Attempt]) -> None:
    shades = _shades(attempts)
    shown = {attempt.rule for attempt in attempts}
    handles = [Patch(color=shade, label=rule) for rule, shade in shades.items() if rule in shown]
    if any(attempt.outcome not in (FINISHED, RUNNING) for attempt in attempts):
        handles.append(Patch(color="black", label="line at the end: ended early"))
    if any(attempt.outcome == RUNNING for attempt in attempts):
        handles.append(Patch(color=GUIDE, alpha=0.45, label="pale: still running"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
