"""A plain training loop, watched: one line attaches the probe.

Run it, then type ``defaultpp-monitor`` in a second terminal:

    python examples/plain_loop.py --steps 300
"""

from __future__ import annotations

import argparse

import torch
from transformers import BertConfig, BertForSequenceClassification

import probe


def batches(steps: int, size: int = 16, length: int = 48) -> list[dict[str, torch.Tensor]]:
    """A task a small model learns in a minute: does token 7 occur in the sequence?"""
    made = []
    for _ in range(steps):
        ids = torch.randint(8, 128, (size, length))
        labels = torch.randint(0, 2, (size,))
        places = torch.randint(1, length // 2, (size,))
        ids[torch.arange(size), places] = torch.where(labels == 1, 7, ids[:, 0])
        lengths = torch.randint(length // 2, length + 1, (size,))
        mask = (torch.arange(length) < lengths[:, None]).long()
        made.append({"input_ids": ids * mask, "attention_mask": mask, "labels": labels})
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=128, hidden_size=64, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=64,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)

    p = probe.attach(model, optimizer, run="plain-loop")

    for step, batch in enumerate(batches(steps)):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    p.close()


if __name__ == "__main__":
    main()
