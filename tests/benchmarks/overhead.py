"""What the probe costs, beside a plain scalar logger and beside DEFault++.

    python tests/benchmarks/overhead.py --rounds 300
    python tests/benchmarks/overhead.py --rounds 300 --only probe scalars peer
    python tests/benchmarks/overhead.py --memory
    python tests/benchmarks/overhead.py --unsampled 10000

Copies of one model take the same batches in turn, each watched in another way; the order changes
each round. Half way they change roles and every watch begins anew: one copy may be half a percent
slower than another for where its memory lies, all through a process. Printed: the ratio of the
summed times to those of the unwatched copy, with a 95 % bootstrap interval over blocks of rounds.
On a machine that others use too, ``--threads 1`` gives
much narrower intervals: no thread waits for another that was interrupted. ``peer`` needs
DEFault++ (``pip install defaultplusplus==0.4.1``, in an environment of its own); it reads attention
weights, so its copy runs the eager kernel, as its manual asks. ``--memory`` compares peak memories,
``--unsampled`` times steps that are not sampled: what the probe's own watch counts, and all its
hooks from outside, their calls included.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

import probe
from probe import listening

VOCABULARY = 1000
KINDS = ("encoder", "decoder")
WARM_UP = 5
Batch = dict[str, torch.Tensor]


def make(kind: str, layers: int, width: int) -> torch.nn.Module:
    """A small model with random weights."""
    torch.manual_seed(0)
    if kind == "encoder":
        config: Any = DistilBertConfig(
            vocab_size=VOCABULARY, dim=width, n_layers=layers, n_heads=4, hidden_dim=4 * width
        )
        return DistilBertForSequenceClassification(config).train()
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=width,
        n_layer=layers,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config).train()


def make_batch(kind: str, size: int, length: int) -> Batch:
    """Random tokens; classes or the tokens themselves as labels."""
    ids = torch.randint(0, VOCABULARY, (size, length))
    labels = torch.randint(0, 2, (size,)) if kind == "encoder" else ids
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


class Plain:
    """Steps of nobody's watching."""

    def __init__(self, model: torch.nn.Module, batch: Batch) -> None:
        self.model, self.batch = model, batch
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def watch(self) -> None:
        """Begin to watch, after the warm-up."""

    def step(self) -> None:
        self.model(**self.batch).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def timed(self) -> float:
        """Seconds of one step."""
        began = perf_counter()
        self.step()
        return perf_counter() - began

    def close(self) -> str:
        """End; what there is to say."""
        return ""


class Watched(Plain):
    """The probe at its defaults, recording to a file."""

    def watch(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "run.trace"
        self._probe = probe.attach(self.model, self.optimizer, endpoint=False, trace=path)
        self._budget = self._probe._budget
        self.sampled: list[bool] = []

    def timed(self) -> float:
        # The other copies' steps are not this run's time: the budget must not count them.
        self._probe._step_began = perf_counter()
        before = self._budget._samples
        seconds = super().timed()
        self.sampled.append(self._budget._samples > before)
        return seconds

    def close(self) -> str:
        account = 100 * self._budget.overhead
        self._probe.close()
        self._folder.cleanup()
        return f"own account {account:.2f} %"


class Scalars(Plain):
    """A line with loss, learning rate and gradient norm per step, as scalar loggers keep."""

    def watch(self) -> None:
        self._file = tempfile.TemporaryFile("w")  # noqa: SIM115 - closed by close()

    def step(self) -> None:
        loss = self.model(**self.batch).loss
        loss.backward()
        norms = [p.grad.norm() for p in self.model.parameters() if p.grad is not None]
        norm = torch.stack(norms).norm()
        rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        if hasattr(self, "_file"):
            self._file.write(f"{loss.item()},{rate},{norm.item()}\n")

    def close(self) -> str:
        self._file.close()
        return ""


class Peer(Plain):
    """DEFault++ 0.4.1 in a hand-written loop, as its manual shows it."""

    def watch(self) -> None:
        from defaultplusplus import FeatureExtractor  # type: ignore[import-not-found]

        self.model.set_attn_implementation("eager")
        self._extractor = FeatureExtractor(self.model)

    def step(self) -> None:
        if not hasattr(self, "_extractor"):
            return super().step()
        began = perf_counter()
        out = self.model(**self.batch, output_attentions=True, output_hidden_states=True)
        out.loss.backward()
        self._extractor.step(
            loss=out.loss,
            outputs=out,
            input_ids=self.batch["input_ids"],
            attention_mask=self.batch["attention_mask"],
            labels=self.batch["labels"],
            optimizer=self.optimizer,
            step_time=perf_counter() - began,
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return None


WAYS: dict[str, type[Plain]] = {
    "plain": Plain,
    "probe": Watched,
    "scalars": Scalars,
    "peer": Peer,
}


def compare(kind: str, ways: list[str], rounds: int, given: argparse.Namespace) -> None:
    """Print the ratios of several ways to watch against none."""
    model = make(kind, given.layers, given.width)
    batch = make_batch(kind, given.batch, given.length)
    names = ["plain", *ways]
    models = {name: copy.deepcopy(model) for name in names}
    first = in_turn(models, batch, rounds // 2)
    if "peer" in models:
        models["peer"] = copy.deepcopy(model)  # its hooks stay where they are
    moving = [name for name in names if name != "peer"]
    moved = dict(zip(moving, [models[name] for name in moving[1:] + moving[:1]], strict=True))
    halves = [first, in_turn(models | moved, batch, rounds // 2)]
    times = {name: np.concatenate([half.times[name] for half in halves]) for name in names}
    plain = times["plain"]
    print(
        f"{kind}: {given.layers} layers, d={given.width}, batch {given.batch} x {given.length}, "
        f"2 x {rounds // 2} rounds, {torch.get_num_threads()} threads; "
        f"a step {1e3 * statistics.median(plain):.0f} ms"
    )
    for way in ways:
        own = times[way]
        low, high = interval(plain, own)
        each = ", ".join(f"{h.times[way].sum() / h.times['plain'].sum():.4f}" for h in halves)
        said = "; ".join(half.said[way] for half in halves if half.said[way])
        print(f"  {way:8} {own.sum() / plain.sum():.4f} [{low:.4f}, {high:.4f}] ({each})  {said}")
        sampled = np.concatenate([half.sampled for half in halves])
        if way == "probe" and sampled.any():
            ratios = own / plain
            print(
                f"           {sampled.sum()} sampled steps, median ratio "
                f"{np.median(ratios[sampled]):.3f}; the others {np.median(ratios[~sampled]):.4f}"
            )


@dataclass
class Half:
    """``times``: seconds a step, by way. ``said``: what each watch told at its end. ``sampled``:
    (rounds,) whether the probe sampled the step."""

    times: dict[str, np.ndarray]
    said: dict[str, str]
    sampled: np.ndarray


def in_turn(models: dict[str, torch.nn.Module], batch: Batch, rounds: int) -> Half:
    """Let every way of watching, each on its model, take its step in each round."""
    names = list(models)
    runs = {name: WAYS[name](model, batch) for name, model in models.items()}
    for run in runs.values():
        for _ in range(WARM_UP):
            run.step()
        run.watch()
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for place in range(len(names)):
            name = names[(place + turn) % len(names)]
            times[name].append(runs[name].timed())
    probed = runs.get("probe")
    return Half(
        {name: np.array(found) for name, found in times.items()},
        {name: run.close() for name, run in runs.items()},
        np.array(probed.sampled if isinstance(probed, Watched) else [False] * rounds),
    )


def interval(without: np.ndarray, with_it: np.ndarray, block: int = 10) -> tuple[float, float]:
    """95 % bootstrap interval of the ratio of sums, resampling blocks of neighbouring rounds."""
    rng = np.random.default_rng(0)
    starts = np.arange(0, max(len(without) - block, 0) + 1, block)
    width = min(block, len(without))
    ratios = []
    for _ in range(2000):
        chosen = rng.choice(starts, len(starts))[:, None] + np.arange(width)
        ratios.append(with_it[chosen].sum() / without[chosen].sum())
    return float(np.quantile(ratios, 0.025)), float(np.quantile(ratios, 0.975))


def memory(ways: list[str], given: argparse.Namespace) -> None:
    """Print the peak memory of a process per way, in turn, and its ratio to the unwatched one's."""
    for kind in KINDS:
        peaks: dict[str, list[float]] = {}
        for _ in range(3):
            for way in ["plain", *ways]:
                command = [sys.executable, __file__, "--memory-of", kind, way]
                sizes = ("--layers", given.layers, "--width", given.width)
                sizes += ("--batch", given.batch, "--length", given.length)
                done = subprocess.run(
                    [*command, *map(str, sizes)], capture_output=True, text=True, check=True
                )
                peaks.setdefault(way, []).append(float(done.stdout.split()[-1]))
        base = statistics.median(peaks["plain"])
        for way, found in peaks.items():
            spread = f"{min(found):.0f} to {max(found):.0f}"
            ratio = statistics.median(found) / base
            print(
                f"{kind:8} {way:8} peak {statistics.median(found):.0f} MB ({spread}), {ratio:.3f}"
            )


def memory_of(kind: str, way: str, given: argparse.Namespace) -> None:
    """Print this process's peak memory in MB after twelve steps, the first ones sampled."""
    batch = make_batch(kind, given.batch, given.length)
    run = WAYS[way](make(kind, given.layers, given.width), batch)
    run.watch()
    for _ in range(12):
        run.timed()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def unsampled(steps: int) -> None:
    """Print what the probe takes on a step that is not sampled, by its own watch and outside it."""
    spent = [0.0]

    def timed(call: Callable[..., None]) -> Callable[..., None]:
        def hook(self: Any, *args: Any) -> None:
            began = perf_counter()
            call(self, *args)
            spent[0] += perf_counter() - began

        return hook

    for kind in (listening.Hook, listening.StepHook):
        kind.__call__ = timed(kind.__call__)  # type: ignore[method-assign]
    run = Plain(make("decoder", 2, 16), make_batch("decoder", 2, 8))
    outside, inside = [], []
    with probe.attach(run.model, run.optimizer, trace=False, every=10**9) as watching:
        for _ in range(steps):
            spent[0], before = 0.0, watching._budget._spent
            run.step()
            outside.append(1e6 * spent[0])
            inside.append(1e6 * (watching._budget._spent - before))
    for name, found in (("by its own watch", inside), ("all hooks, from outside", outside)):
        later = np.array(found[5:])
        print(
            f"unsampled step, {len(later)} steps, {name}: mean {later.mean():.1f} us, "
            f"median {np.median(later):.1f}, 95th percentile {np.quantile(later, 0.95):.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--only", nargs="+", choices=list(WAYS)[1:], default=["probe"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--threads", type=int, help="torch's threads; default: as torch chooses")
    parser.add_argument("--memory", action="store_true", help="compare peak memories instead")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--unsampled", type=int, metavar="STEPS", help="time unsampled steps")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    with contextlib.suppress(KeyboardInterrupt):
        if given.memory_of:
            memory_of(*given.memory_of, given)
        elif given.memory:
            memory(given.only, given)
        elif given.unsampled:
            unsampled(given.unsampled)
        else:
            for kind in given.kinds:
                compare(kind, given.only, given.rounds, given)


if __name__ == "__main__":
    main()
