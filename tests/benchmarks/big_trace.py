"""A long run's trace for the benchmarks: 24 layers, about 1,200 values a frame.

    python tests/benchmarks/big_trace.py /tmp/big.trace --frames 100000

Values are drawn once for 97 frames and repeated with a shift: what is measured is how they are
read. One frame is made every ten steps, with the ten steps' losses before it.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import msgspec
import numpy as np

from monitor.sources.fake import Script, header
from probe.schema import Column, End, Frame, Header, Record, Scalars, encode
from probe.trace import TraceWriter

VALUES = 1200
LAYERS = 24
EVERY = 10
_KINDS = 97


def big_header(values: int = VALUES, layers: int = LAYERS) -> Header:
    """The fake run's header with about that many columns: whole metrics, over all layers."""
    found = header(Script(layers=layers))
    metrics = defaultdict(list)
    for column in found.columns:
        metrics[column.site.partition("@")[0], column.metric].append(column)
    kept: list[Column] = []
    for columns in metrics.values():
        if len(kept) + len(columns) <= values:
            kept += columns
    return msgspec.structs.replace(found, columns=tuple(kept))


def write(path: Path, frames: int, values: int = VALUES) -> int:
    """Write the trace; its size in bytes."""
    start = big_header(values)
    values = len(start.columns)
    random = np.random.default_rng(0)
    table = random.normal(1.0, 0.1, (_KINDS, values)).astype("<f4")
    loss = random.normal(2.0, 0.1, EVERY * _KINDS).astype("<f4")
    writer = TraceWriter(path, cap_bytes=1 << 40)
    sequence = 0

    def put(record: Record) -> None:
        nonlocal sequence
        record.seq = sequence
        sequence += 1
        writer.append(encode(record))

    put(start)
    for number in range(frames):
        first = number * EVERY
        at = number % _KINDS
        steps = tuple(range(first, first + EVERY))
        put(
            Scalars(
                seq=0,
                names=("loss",),
                steps=steps,
                times=tuple(step / 10 for step in steps),
                values=loss[at * EVERY : (at + 1) * EVERY].tobytes(),
            )
        )
        values_now = table[at] + np.float32(number / frames)
        put(Frame(seq=0, step=first, time=first / 10, values=values_now.tobytes(), cost=0.001))
    put(End(seq=0, step=frames * EVERY - 1, time=frames * EVERY / 10, reason="done"))
    writer.close()
    return path.stat().st_size


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--frames", type=int, default=100_000)
    options = parser.parse_args()
    print(f"{options.path}: {write(options.path, options.frames) / 1e6:.0f} MB")
