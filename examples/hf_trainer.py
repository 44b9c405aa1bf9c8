"""The transformers Trainer, watched: one callback.

python examples/hf_trainer.py --steps 200
"""

from __future__ import annotations

import argparse
import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from probe.huggingface import ProbeCallback


class Counting(torch.utils.data.Dataset):
    """Sequences that count upwards from a random start: the next token is always known."""

    def __init__(self, size: int, length: int = 32, vocabulary: int = 96) -> None:
        starts = torch.randint(0, vocabulary, (size, 1))
        self.rows = (starts + torch.arange(length)) % vocabulary

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=96,
        n_positions=32,
        n_embd=64,
        n_layer=3,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            run_name="hf-trainer",
            max_steps=steps,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            learning_rate=1e-3,
            logging_steps=50,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
        )
        trainer = Trainer(
            model=GPT2LMHeadModel(config),
            args=arguments,
            train_dataset=Counting(16 * steps),
            callbacks=[ProbeCallback()],
        )
        trainer.train()


if __name__ == "__main__":
    main()
