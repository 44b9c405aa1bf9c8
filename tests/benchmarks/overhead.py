"""What the probe costs: training steps with and without it, in turn, in one process.

    python tests/benchmarks/overhead.py --pairs 300

Two copies of a model take the same batches alternately, one watched at the defaults; the order
within a pair changes each time. Printed: the ratio of the summed times with a 95 % bootstrap
interval over blocks of pairs, the probe's own account, the cost of an unsampled step measured
inside, and the ratio of a sampled step to its unwatched partner.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from time import perf_counter

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

import probe

VOCABULARY = 1000


def make(kind: str, layers: int, width: int) -> torch.nn.Module:
    if kind == "encoder":
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=VOCABULARY,
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=4,
                intermediate_size=4 * width,
            )
        ).train()
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=width,
            n_layer=layers,
            n_head=4,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).train()


def one_step(model, optimizer, batch) -> float:
    began = perf_counter()
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return perf_counter() - began


def measure(kind: str, pairs: int, layers: int, width: int, size: int, length: int) -> None:
    torch.manual_seed(0)
    plain = make(kind, layers, width)
    watched = copy.deepcopy(plain)
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-4) for m in (plain, watched)]
    ids = torch.randint(0, VOCABULARY, (size, length))
    labels = torch.randint(0, 2, (size,)) if kind == "encoder" else ids
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    for _ in range(5):
        one_step(plain, optimizers[0], batch)
        one_step(watched, optimizers[1], batch)
    watching = probe.attach(watched, optimizers[1], endpoint=False, trace=False)
    budget = watching._budget
    without, with_probe, sampled, inside = [], [], [], []
    for pair in range(pairs):
        spent, samples = budget._spent, budget._samples
        for second in (pair % 2, 1 - pair % 2):
            # The unwatched partner's step is not this run's time: the budget must not count it.
            watching._step_began = perf_counter()
            seconds = one_step((plain, watched)[second], optimizers[second], batch)
            (without, with_probe)[second].append(seconds)
        if budget._samples > samples:
            sampled.append(with_probe[-1] / without[-1])
        elif pair:  # the first step finds the anatomy
            inside.append(budget._spent - spent)
    overhead = budget.overhead
    watching.close()
    low, high = interval(np.array(without), np.array(with_probe))
    ratio = sum(with_probe) / sum(without)
    print(
        f"{kind}: {layers} layers, d={width}, batch {size} x {length}, {pairs} pairs: "
        f"ratio {ratio:.4f} [{low:.4f}, {high:.4f}]; "
        f"step {1e3 * statistics.median(without):.1f} ms; "
        f"own account {100 * overhead:.2f} %; "
        f"unsampled step {1e6 * statistics.median(inside):.0f} us"
        f" inside; {len(sampled)} sampled steps, median ratio "
        f"{statistics.median(sampled) if sampled else float('nan'):.2f}"
    )


def interval(without: np.ndarray, with_probe: np.ndarray, block: int = 10) -> tuple[float, float]:
    """95 % bootstrap interval of the ratio of sums, resampling blocks of neighbouring pairs."""
    rng = np.random.default_rng(0)
    starts = np.arange(0, len(without) - block + 1, block)
    ratios = []
    for _ in range(2000):
        chosen = rng.choice(starts, len(starts))[:, None] + np.arange(block)
        ratios.append(with_probe[chosen].sum() / without[chosen].sum())
    return float(np.quantile(ratios, 0.025)), float(np.quantile(ratios, 0.975))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    given = parser.parse_args()
    for kind in ("encoder", "decoder"):
        measure(kind, given.pairs, given.layers, given.width, given.batch, given.length)


if __name__ == "__main__":
    main()
