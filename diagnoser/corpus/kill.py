"""Trains for the kill test (:mod:`diagnoser.kill_test`): the same small task, clean and faulty.

Every operator that acts on the family, at the middle one of its severities, in all layers; from
the first step where it is a fault of the start, else on the way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import torch

from diagnoser import faults
from diagnoser.corpus import CorpusError, pool
from diagnoser.corpus.execute import quiet
from diagnoser.corpus.families import FAMILIES, Batch
from diagnoser.corpus.manifest import mend, read_lines
from diagnoser.corpus.recipe import Recipe, Size
from diagnoser.corpus.tasks import IGNORED, Batches
from diagnoser.corpus.training import Training, train
from diagnoser.corpus.vocabulary import END
from diagnoser.faults.fault import Clean, Fault, Operator
from diagnoser.faults.parts import read_anatomy
from diagnoser.kill_test import SEEDS, Kills, Measured, verdicts

KEPT = "kills.jsonl"
TASK = "sort"
TESTED = ("bert", "gpt2")
STEPS, INJECT_AT, LAST = 300, 60, 30
"""Steps trained, the step at which the fault comes, and how many give the training loss."""
VALIDATION_BATCHES = 8
PATIENCE_SECONDS = 300.0

DESIGN = (
    f"{' and '.join(TESTED)}, 2 layers of width 32, task {TASK}, {STEPS} steps, {SEEDS} matched "
    f"seeds; an operator at the middle one of its severities, in all layers, from step "
    f"{INJECT_AT} on (faults of the start: from the first step); the validation loss of the "
    "decoder is that of decoding with its cache"
)


def recipe(family: str, seed: int) -> Recipe:
    """The training of a seed."""
    return Recipe(
        family,
        TASK,
        Size(2, 32, 4, 4, 320),
        seed=seed,
        batch_size=16,
        length=24,
        padding="right",
        learning_rate=5e-3,
        dropout=0.1,
    )


@dataclass(frozen=True)
class Order:
    """One training. ``operator``: its code; None for the clean one."""

    family: str
    operator: str | None
    seed: int


def _fault(operator: Operator, training: Training) -> Fault | None:
    """The operator at its middle severity in all layers; None where no severity fits."""
    anatomy = read_anatomy(training.model)
    given = training.recipe
    clean = Clean(anatomy, training.optimizer, given.length, given.clip)
    values = operator.choose_from(clean)
    if operator.parameter is not None and not values:
        return None
    value = None
    if operator.parameter is not None:
        value = "all" if operator.parameter == "layers" else values[len(values) // 2]
    return Fault(
        operator=operator.code,
        category=operator.category,
        root_cause=operator.root_cause,
        layers=tuple(range(len(anatomy.blocks))) if operator.layered else (),
        parameter=operator.parameter,
        value=value,
        seed=given.seed,
    )


def validation_loss(training: Training) -> float:
    """Mean loss on batches that are never trained on, in evaluation mode; nats."""
    decoder = FAMILIES[training.recipe.family].kind == "decoder"
    given = replace(training.recipe, padding="none") if decoder else training.recipe
    batches = Batches(given, stream=6)
    training.model.eval()
    with torch.no_grad():
        losses = [
            _decoding_loss(training.model, batch) if decoder else training.loss(batch).item()
            for batch in (next(batches) for _ in range(VALIDATION_BATCHES))
        ]
    training.model.train()
    return sum(losses) / len(losses)


def _decoding_loss(model: torch.nn.Module, batch: Batch) -> float:
    """Loss of the answers by cached decoding: the question at once, then token by token."""
    ids, labels = batch["input_ids"], batch["labels"]
    asked = int((ids[0] == END).nonzero()[0, 0]) + 1
    output = model(input_ids=ids[:, :asked], use_cache=True)
    logits = [output.logits[:, -1]]
    for at in range(asked, ids.shape[1] - 1):
        output = model(
            input_ids=ids[:, at : at + 1], past_key_values=output.past_key_values, use_cache=True
        )
        logits.append(output.logits[:, -1])
    found: torch.Tensor = torch.nn.functional.cross_entropy(
        torch.stack(logits, dim=1).flatten(0, 1),
        labels[:, asked:].flatten(),
        ignore_index=IGNORED,
    )
    return found.item()


def measure(order: Order) -> Iterator[Measured]:
    """Trains as ordered; nothing where the operator has no severity for this training."""
    quiet()
    training = Training(recipe(order.family, order.seed))
    kind = FAMILIES[order.family].kind
    operator = faults.OPERATORS[order.operator] if order.operator else None
    fault = _fault(operator, training) if operator else None
    if operator and fault is None:
        return
    found = Measured(
        family=order.family,
        kind=kind,
        seed=order.seed,
        cause=f"{operator.category}/{operator.root_cause}" if operator else None,
        operator=order.operator,
        value=fault.value if fault else None,
        layers=fault.layers if fault else (),
    )
    before = 0 if operator and operator.moment == "start" else INJECT_AT
    with ExitStack() as until:
        try:
            losses = [loss for _, loss in train(training, before)]
            if fault is not None:
                until.enter_context(faults.inject(training.model, training.optimizer, fault))
            losses += [loss for _, loss in train(training, STEPS - before)]
            yield msgspec.structs.replace(
                found,
                training=sum(losses[-LAST:]) / LAST,
                validation=validation_loss(training),
            )
        except Exception as error:
            yield msgspec.structs.replace(found, failure=f"{type(error).__name__}: {error}"[:300])


def orders() -> list[Order]:
    """All trainings of the test: the clean ones, then fault by fault."""
    seeds = range(SEEDS)
    found = [Order(family, None, seed) for family in TESTED for seed in seeds]
    fitting = {
        family: {
            operator.code for operator in faults.operators_for(Training(recipe(family, 0)).model)
        }
        for family in TESTED
    }
    for code in faults.OPERATORS:
        for family in TESTED:
            if code in fitting[family]:
                found += [Order(family, code, seed) for seed in seeds]
    return found


class _Line(msgspec.Struct, frozen=True):
    """What ``kills.jsonl`` holds: done under which design; without a result where none fits."""

    design: str
    order: tuple[str, str | None, int]
    measured: Measured | None


def _read(file: Path) -> dict[Order, Measured | None]:
    lines: list[_Line] = read_lines(file, _Line)
    return {Order(*line.order): line.measured for line in lines if line.design == DESIGN}


def kill_test(
    folder: Path,
    *,
    minutes: float,
    jobs: int = 2,
    only: tuple[str, ...] = (),
    report: Callable[[int, int], None] = lambda done, of: None,
) -> Kills:
    """Trains what is missing in ``folder``, for ``minutes`` at most, and judges what is there.

    ``only``: operators to train (default all). ``report(done, of)`` is called after each training.
    Raises :class:`CorpusError` for an unknown operator.
    """
    unknown = sorted(set(only) - set(faults.OPERATORS))
    if unknown:
        raise CorpusError(f"no operator {', '.join(unknown)}: diagnoser/faults/README.md has them")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / KEPT
    mend(file)
    done = _read(file)
    wanted = [order for order in orders() if not only or order.operator in (None, *only)]
    missing = iter([order for order in wanted if order not in done])
    stop_at = time.time() + minutes * 60

    def take() -> Order | None:
        return next(missing, None) if time.time() < stop_at else None

    with closing(pool.run(take, measure, jobs=jobs, patience=PATIENCE_SECONDS)) as outcomes:
        for outcome in outcomes:
            order = outcome.job
            measured: Measured | None = next(iter(outcome.contents), None)
            if outcome.failure is not None:
                measured = _lost(order, outcome.failure)
            done[order] = measured
            line = _Line(DESIGN, (order.family, order.operator, order.seed), measured)
            with file.open("ab") as out:
                out.write(msgspec.json.encode(line) + b"\n")
            report(len(done), len(wanted))
    return Kills(
        design=DESIGN,
        verdicts=verdicts(measured for measured in done.values() if measured is not None),
    )


def _lost(order: Order, reason: str) -> Measured:
    operator = faults.OPERATORS[order.operator] if order.operator else None
    return Measured(
        family=order.family,
        kind=FAMILIES[order.family].kind,
        seed=order.seed,
        cause=f"{operator.category}/{operator.root_cause}" if operator else None,
        operator=order.operator,
        failure=reason,
    )
