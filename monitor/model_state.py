"""A run model as plain arrays and back, so that a long trace's overview can be kept in a file."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from monitor.envelope import Envelope
from monitor.run_model import MAX_EVENTS, RunModel
from monitor.sources.source import Batch
from monitor.step_clock import StepClock
from probe.schema import End, Event, Header, decode_record, encode

Arrays = dict[str, npt.NDArray[Any]]
_ENVELOPE = ("first", "last", "low", "high", "latest", "marks")


def pack(model: RunModel) -> Arrays:
    """Everything read of a run; the monitor's own notes are left out. Raises ValueError before the
    run's header."""
    if model.header is None:
        raise ValueError("no header was read yet")
    records = [encode(model.header)]
    records += [encode(event) for event in model.events if event.seq >= 0]
    records += [encode(model.end)] if model.end is not None else []
    names = list(model._scalars)
    about = {
        "names": names,
        "ranks": [list(model._scalars[name]) for name in names],
        "frame_ranks": list(model._histories),
        "numbers": [model.step, model.first_step, model.frames, model._misfits],
        "pace": list(model._pace),
        "clock": [model.clock._every, model.clock._skipped],
    }
    found: Arrays = {
        "records": _bytes(records),
        "about": _bytes(about),
        "measured": model._measured.copy(),
        "clock.steps": np.array(model.clock._steps, np.int64),
        "clock.times": np.array(model.clock._times, np.float64),
    }
    for rank, history in model._histories.items():
        found |= _packed(f"frames.{rank}", history)
    for place, name in enumerate(names):
        for rank, history in model._scalars[name].items():
            found |= _packed(f"scalars.{place}.{rank}", history)
    return found


def taken(model: RunModel, batch: Batch) -> RunModel:
    """The model after what one read brought: another one where that was an overview, with the
    monitor's own notes of the one before."""
    if batch.overview is not None:
        before, model = model, RunModel()
        unpack(model, dict(batch.overview))
        notes = [event for event in before.events if event.seq < 0]
        events = sorted([*model.events, *notes], key=lambda event: event.step)
        model.events = deque(events, maxlen=MAX_EVENTS)
        model.version, model.contents = before.version + 1, before.contents + 1
    model.take(replace(batch, records=()) if batch.known else batch)
    return model


def unpack(model: RunModel, arrays: Arrays) -> None:
    """Make a fresh model one that read all that was packed. Raises ValueError, KeyError or a
    SchemaError where the arrays are not ones of :func:`pack`."""
    for data in msgspec.msgpack.decode(arrays["records"].tobytes(), type=list[bytes]):
        record = decode_record(data)
        if isinstance(record, Header):
            model._take_header(record)
        elif isinstance(record, Event):
            model.events.append(record)
        elif isinstance(record, End):
            model.end = record
    about = msgspec.msgpack.decode(arrays["about"].tobytes())
    model.step, model.first_step, model.frames, model._misfits = about["numbers"]
    model._pace.extend((step, time) for step, time in about["pace"])
    model._measured = arrays["measured"].astype(bool)
    model.clock = StepClock()
    model.clock._steps = arrays["clock.steps"].tolist()
    model.clock._times = arrays["clock.times"].tolist()
    model.clock._every, model.clock._skipped = about["clock"]
    for rank in about["frame_ranks"]:
        model._histories[rank] = _unpacked(f"frames.{rank}", arrays)
    for place, name in enumerate(about["names"]):
        model._scalars[name] = {
            rank: _unpacked(f"scalars.{place}.{rank}", arrays) for rank in about["ranks"][place]
        }
    model._groups = None
    model.version += 1
    model.contents += 1


def _bytes(value: Any) -> npt.NDArray[np.uint8]:
    return np.frombuffer(msgspec.msgpack.encode(value), np.uint8)


def _packed(name: str, envelope: Envelope) -> Arrays:
    about = [envelope.columns, envelope.capacity, envelope.count, envelope.stride]
    found: Arrays = {f"{name}.about": np.array([*about, envelope._filled], np.int64)}
    for part, values in zip(_ENVELOPE, envelope._arrays, strict=True):
        found[f"{name}.{part}"] = values[: envelope.count].copy()
    return found


def _unpacked(name: str, arrays: Arrays) -> Envelope:
    columns, capacity, count, stride, filled = arrays[f"{name}.about"].tolist()
    envelope = Envelope(columns, capacity)
    envelope._allocate(max(count, 1))
    envelope.count, envelope.stride, envelope._filled = count, stride, filled
    for part, place in zip(_ENVELOPE, envelope._arrays, strict=True):
        place[:count] = arrays[f"{name}.{part}"]
    return envelope
