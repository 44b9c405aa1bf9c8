"""A scripted run, the same every time: for tests, screenshots, and trying the screen out."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from monitor.sources.source import Batch, Link, Position
from probe.catalogue import METRICS, columns_for, head_columns
from probe.heads import split
from probe.schema import (
    Anatomy,
    Column,
    Control,
    End,
    Event,
    Frame,
    Header,
    Metric,
    Record,
    Scalars,
    Site,
)

_BLOCK = (
    "qkv",
    "score",
    "mask",
    "attention",
    "residual_attention",
    "norm_attention",
    "ffn",
    "residual_ffn",
    "norm_ffn",
    "drift",
)


@dataclass(frozen=True)
class Script:
    """What happens in the run. ``fault_step`` None: nothing. Steps are numbered from 0."""

    steps: int = 400
    every: int = 10
    layers: int = 4
    fault_step: int | None = None
    fault_layer: int = 2
    nan_steps: tuple[int, ...] = ()
    """Steps at which the loss is NaN and the logits' spread is infinite."""
    seed: int = 0
    metrics: tuple[Metric, ...] = METRICS
    """Only these are measured; definitions of the catalogue."""
    heads: int = 0
    """Heads of every layer that have columns of their own."""


def anatomy(layers: int = 4) -> Anatomy:
    """A BERT-like encoder."""
    sites = [Site("embedding", "embedding"), Site("positional", "positional")]
    sites += [Site(f"{node}@{layer}", node, layer) for layer in range(layers) for node in _BLOCK]
    sites += [Site(node, node) for node in ("output", "training", "validation")]
    return Anatomy(
        model="BertForMaskedLM",
        kind="encoder",
        layers=layers,
        width=128,
        heads=4,
        kv_heads=4,
        head_dim=32,
        vocabulary=8192,
        parameters=1_905_664,
        norm_order="post",
        positions="learned",
        sites=tuple(sites),
    )


def header(script: Script) -> Header:
    """The stream's first record."""
    found = anatomy(script.layers)
    names = {metric.name for metric in script.metrics}
    heads = {("", layer): script.heads for layer in range(script.layers)}
    columns = columns_for(found.sites) + head_columns(found.sites, heads)
    return Header(
        seq=0,
        run="20260101-000000-bert",
        name="bert-wikitext",
        created=0.0,
        host="fake",
        pid=1,
        anatomy=found,
        metrics=script.metrics,
        columns=tuple(c for c in columns if c.metric in names),
        absent={"mask/cross_mass": "the batch is not packed", "training/clip_level": "no clipping"},
    )


@lru_cache(maxsize=16)
def records(script: Script) -> tuple[Record, ...]:
    """The whole stream, an :class:`End` last."""
    found: list[Record] = [header(script)]
    random = np.random.default_rng(script.seed)
    losses = _losses(script, random)
    columns = _columns(script, header(script).columns)
    shift = random.normal(size=len(columns))
    found.append(_event(len(found), 0, "attached", "4 layers found, 0 unknown modules"))
    for step in range(0, script.steps, script.every):
        steps = tuple(range(step, min(step + script.every, script.steps)))
        found.append(_scalars(len(found), steps, losses))
        if script.fault_step is not None and step <= script.fault_step < step + script.every:
            text = f"masking/mask_application injected at layer {script.fault_layer}"
            found.append(_event(len(found), script.fault_step, "fault", text))
        values = _values(script, columns, step, shift, random, losses)
        found.append(
            Frame(
                seq=len(found),
                step=step,
                time=step / 12.5,
                values=values.astype("<f4").tobytes(),
                cost=0.01,
            )
        )
    last = script.steps - 1
    found.append(End(seq=len(found), step=last, time=last / 12.5, reason="training finished"))
    return tuple(found)


def _event(seq: int, step: int, kind: str, text: str) -> Event:
    return Event(seq=seq, step=step, time=step / 12.5, kind=kind, text=text)


def _losses(script: Script, random: np.random.Generator) -> npt.NDArray[np.float32]:
    steps = np.arange(script.steps)
    losses = 2.1 + 6.9 * np.exp(-steps / 90) + random.normal(size=script.steps) * 0.12
    losses[list(script.nan_steps)] = np.nan
    return losses.astype(np.float32)


def _scalars(seq: int, steps: tuple[int, ...], losses: npt.NDArray[np.float32]) -> Scalars:
    rate = np.minimum(np.array(steps) / 100, 1.0) * 3e-4
    values = np.stack([losses[list(steps)], rate], axis=1)
    return Scalars(
        seq=seq,
        names=("loss", "learning_rate"),
        steps=steps,
        times=tuple(step / 12.5 for step in steps),
        values=values.astype("<f4").tobytes(),
    )


@dataclass(frozen=True)
class _Value:
    """One column: its metric, its layer, how deep in the model that is."""

    column: Column
    metric: Metric
    layer: int
    depth: float


def _columns(script: Script, columns: tuple[Column, ...]) -> tuple[_Value, ...]:
    forms = {(metric.name, node): metric for metric in script.metrics for node in metric.nodes}
    found = []
    for column in columns:
        node, _, layer = split(column.site)[0].partition("@")
        depth = int(layer or 0) / max(script.layers - 1, 1)
        found.append(_Value(column, forms[column.metric, node], int(layer or 0), depth))
    return tuple(found)


def _values(
    script: Script,
    columns: tuple[_Value, ...],
    step: int,
    shift: npt.NDArray[np.float64],
    random: np.random.Generator,
    losses: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    noise = random.normal(size=len(columns))
    since = -1 if script.fault_step is None else step - script.fault_step
    values = np.empty(len(columns))
    for index, value in enumerate(columns):
        column = value.column
        found = _healthy(value.metric, step, value.depth, shift[index], noise[index])
        rare = column.site == "validation" and step % 100
        if rare or column.metric in ("cross_mass", "clip_level"):
            found = np.nan
        elif column.key == "training/loss":
            found = losses[step]
        elif column.key == "output/logit_std" and step in script.nan_steps:
            found = np.inf
        values[index] = _faulty(column, found, value.layer, since, script) if since >= 0 else found
    return values


def _healthy(metric: Metric, step: int, depth: float, shift: float, noise: float) -> float:
    settle = float(np.exp(-step / 120))
    if metric.form == "residual":
        return float(2e-7 * np.exp(0.4 * noise))
    if metric.contract:
        return 0.0
    if metric.form == "share":
        return float(np.clip(0.62 + 0.25 * settle - 0.12 * depth + 0.015 * noise, 0, 1))
    if metric.form == "positive":
        return float(np.exp(0.3 * shift + 0.8 * settle - 0.5 * depth + 0.06 * noise))
    return 0.4 * shift - 0.5 * depth + 0.6 * settle + 0.05 * noise


def _faulty(column: Column, value: float, layer: int, since: int, script: Script) -> float:
    """The mask of one layer is no longer applied; what follows it drifts."""
    share = 1 - float(np.exp(-(since + 3) / 12))
    if layer == script.fault_layer:
        changed = {
            "padding_mass": 0.23 * share,
            "leaked": 0.31,
            "entropy": value + 0.14 * share,
            "max_weight": value - 0.2 * share,
        }
        if column.site.startswith(("mask@", "attention@")):
            return changed.get(column.metric, value)
    if layer > script.fault_layer and column.metric in ("entropy", "branch_ratio"):
        return value * (1 + 0.12 * share)
    return value


class FakeSource:
    """Gives a script's records in batches, then stays at ``last`` with its sentence.

    ``per_read`` 0 gives all at once. ``pace`` is the seconds a read waits; 0 never waits.
    ``cut`` leaves out that many records at the end, as a killed run does. ``sent`` holds the
    controls received.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        per_read: int = 0,
        pace: float = 0.0,
        last: Link = "live",
        text: str = "",
        cut: int = 1,
        title: str = "bert-wikitext (fake)",
    ) -> None:
        self.title = title
        everything = records(script or Script())
        self.records = everything[: len(everything) - cut]
        self.sent: list[str] = []
        self.closed = threading.Event()
        self._per_read = per_read or len(self.records)
        self._pace = pace
        self._last = Batch(link=last, state="training", text=text, overhead=0.013)
        self._state = "training"
        self._at = 0

    def read(self, limit: int = 500, timeout: float = 0.25) -> Batch:
        if self._pace:
            self.closed.wait(self._pace)
        part = self.records[self._at : self._at + self._per_read]
        self._at += len(part)
        if self._at >= len(self.records):
            return replace(self._last, records=part, state=self._state)
        return Batch(part, link="live", state=self._state, overhead=0.013)

    def send(self, control: Control) -> str:
        self.sent.append(control.action)
        if control.action == "pause":
            self._state = "paused"
            return "training paused before its next step"
        if control.action == "step":
            return "one more step, then paused again"
        if control.action == "resume":
            self._state = "training"
            return "training resumed"
        return "the next step will be measured"

    def close(self) -> None:
        self.closed.set()


class FakeReplay(FakeSource):
    """The same script as a trace: with a position, played by hand or as fast as it is read."""

    def __init__(self, script: Script | None = None, *, pace: float = 0.0) -> None:
        super().__init__(script, cut=0, last="replay", title="bert.trace", pace=pace)
        self._lock = threading.Lock()
        self._goal = 0
        self._playing = False
        self._speed = 1.0
        self._frames = [i for i, r in enumerate(self.records) if isinstance(r, Frame)]
        self.jump(10**9)

    def read(self, limit: int = 500, timeout: float = 0.25) -> Batch:
        if self._pace:
            self.closed.wait(self._pace)
        with self._lock:
            if self._playing:
                self._goal = min(self._goal + max(1, round(self._speed)), len(self.records))
                self._playing = self._goal < len(self.records)
            part = self.records[self._at : self._goal]
            self._at = self._goal
        return Batch(part, link="replay")

    def position(self) -> Position:
        with self._lock:
            steps = [r.step for r in self.records[: self._goal] if isinstance(r, Frame)]
            last = self.records[self._frames[-1]]
            last_step = last.step if isinstance(last, Frame) else 0
            return Position(
                self._goal,
                len(self.records),
                steps[-1] if steps else 0,
                last_step,
                self._playing,
                self._speed,
            )

    def play(self, playing: bool) -> None:
        with self._lock:
            self._playing = playing

    def set_speed(self, speed: float) -> None:
        with self._lock:
            self._speed = speed

    def jump(self, step: int) -> None:
        with self._lock:
            targets = [i for i in self._frames if self.records[i].step >= step]  # type: ignore[union-attr]
            self._go((targets[0] + 1) if targets else len(self.records))

    def step(self, frames: int) -> None:
        with self._lock:
            passed = sum(index < self._goal for index in self._frames)
            wanted = min(max(passed + frames, 1), len(self._frames))
            self._go(self._frames[wanted - 1] + 1)

    def _go(self, goal: int) -> None:
        if goal < self._at:
            self._at = 0  # going back restarts the stream
        self._goal = goal
