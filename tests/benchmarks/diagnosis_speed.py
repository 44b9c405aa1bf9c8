"""What one rolling update of the diagnosis costs: a decoder of 12 layers and 12 heads, one core.

    python tests/benchmarks/diagnosis_speed.py

A short real run, healthy and with a fault, is recorded and given to the engine frame by frame. The
target is 20 ms of processor time an update.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

import probe
from diagnoser import faults
from diagnoser.engine import Engine
from probe import trace_reader
from probe.schema import Frame, Header


def record(path: Path, operator: str | None, steps: int, layers: int) -> None:
    """A run of a narrow GPT-2 on random tokens; the fault from its middle on."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=256, n_positions=64, n_embd=48, n_layer=layers, n_head=12)
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with ExitStack() as until_done:
        until_done.enter_context(
            probe.attach(model, optimizer, endpoint=False, trace=path, every=1, budget=None)
        )
        for step in range(steps):
            if operator is not None and step == steps // 2:
                fault = faults.draw(
                    model, random.Random(0), operator=operator, optimizer=optimizer, length=24
                )
                until_done.enter_context(faults.inject(model, optimizer, fault))
            ids = torch.randint(0, 256, (4, 24))
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()


def updates(path: Path) -> list[float]:
    """Processor seconds of every update of the engine after the first."""
    records = trace_reader.load(path)
    engine: Engine | None = None
    found: list[float] = []
    for item in records:
        if isinstance(item, Header):
            if engine is None:
                engine = Engine(item)
            else:
                engine.rebind(item)
        elif isinstance(item, Frame) and engine is not None:
            began = time.process_time()
            engine.update(item)
            found.append(time.process_time() - began)
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for operator in (None, "QZK"):
            path = Path(folder) / f"{operator}.trace"
            record(path, operator, given.steps, given.layers)
            took = 1e3 * np.array(updates(path))
            middle, late = np.quantile(took, (0.5, 0.95))
            print(
                f"{given.layers} layers, {'healthy' if operator is None else operator}: "
                f"median {middle:.1f} ms, 95th percentile {late:.1f} ms of {len(took)} updates "
                "(target 20 ms)"
            )


if __name__ == "__main__":
    main()
