"""``python -m diagnoser.faithfulness``: does the importance name what decided?

Of every faulty run that the weights name rightly at its end, the two most important components are
removed: their metrics are made absent at all their sites, as on a model on which they cannot be
measured, and contracts that fire nowhere else are met no more. An importance is faithful if that
lowers the margin of the right answer more than removing two components drawn at random does.

Two margins: the category's logit less the best other category's; and the log probability of the
root cause, among all 45, less the best other's.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from diagnoser import sources, weights
from diagnoser.figures import category_order, wilson
from diagnoser.importance import by_kind, importance
from diagnoser.manifest import CorpusError
from diagnoser.model import cause_log_probabilities
from diagnoser.moments import broken_at
from diagnoser.report import README, write_between
from diagnoser.rules import RULES
from diagnoser.selfcheck import TABLE
from diagnoser.taxonomy import CATEGORY_NAMES
from diagnoser.votes import CAUSE_CATEGORY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import numpy.typing as npt

    from diagnoser.dataset import Sample
    from diagnoser.model import Output
    from diagnoser.weights import Trained

    Floats = npt.NDArray[np.floating]

BEGIN = "<!-- importance: begin, written by python -m diagnoser.faithfulness --write -->"
END = "<!-- importance: end -->"

REMOVED = 2
DRAWS = 20
MARGINS = ("category", "root cause")


@dataclass(frozen=True)
class Outcome:
    """What removal did to one run. ``removed``: the most important components. ``drops``: how much
    each of :data:`MARGINS` fell. ``random``: (draws, margins) the same for components drawn.
    ``nothing``: the category named when all components are removed."""

    category: str
    removed: tuple[str, ...]
    drops: Floats
    random: Floats
    nothing: str

    @property
    def faithful(self) -> npt.NDArray[np.bool_]:
        """By margin: whether it fell more than by random removal on average."""
        return np.asarray(self.drops > self.random.mean(axis=0))


def met_at(sample: Sample) -> dict[int, set[str]]:
    """By rule that is met: the node kinds at which its contract is broken (the first that the model
    has, where the breach is no longer in the window)."""
    broken: dict[int, set[str]] = {}
    for firing in broken_at(sample):
        broken.setdefault(firing.rank, set()).add(firing.node)
    met = np.flatnonzero(sample.fired).tolist()
    return {number: broken.get(number) or _first(sample, number) for number in met}


def _first(sample: Sample, number: int) -> set[str]:
    return set([kind for kind in RULES[number].nodes if len(sample.nodes.get(kind, ()))][:1])


def without(
    sample: Sample, gone: Collection[str], met: dict[int, set[str]]
) -> tuple[dict[str, Floats], npt.NDArray[np.float32]]:
    """The sample's features and rules met, as if the components ``gone`` could not be measured."""
    nodes = {
        kind: np.zeros_like(values) if kind in gone else values
        for kind, values in sample.nodes.items()
    }
    fired = sample.fired.copy()
    fired[[number for number, kinds in met.items() if kinds <= set(gone)]] = 0.0
    return nodes, fired


def margins(output: Output, category: int, cause: int) -> Floats:
    """(graphs, :data:`MARGINS`) lead of the right answers over the best others."""
    joint = output.category.log_softmax(dim=-1)[:, list(CAUSE_CATEGORY)]
    joint = joint + cause_log_probabilities(output)
    leads = [_lead(output.category, category), _lead(joint, cause)]
    return torch.stack(leads, dim=1).double().numpy()


def _lead(logits: torch.Tensor, number: int) -> torch.Tensor:
    others = torch.cat([logits[:, :number], logits[:, number + 1 :]], dim=1)
    return logits[:, number] - others.amax(dim=1)


def examine(trained: Trained, sample: Sample, random: np.random.Generator) -> Outcome | None:
    """Remove components of one faulty run; None where the run is not named rightly."""
    kinds = trained.network.kinds
    present = [kind for kind in kinds if len(sample.nodes[kind])]
    met = met_at(sample)
    scores, output = _answers(trained, sample, [without(sample, (), met)])
    right = (
        scores[0] >= np.log(trained.calibration.high / (1 - trained.calibration.high))
        and (margins(output, sample.category, sample.cause) > 0).all()
    )
    if not right or len(present) <= REMOVED:
        return None
    places = torch.zeros(len(RULES), dtype=torch.long)
    for number, where in met.items():
        places[number] = kinds.index(next(kind for kind in RULES[number].nodes if kind in where))
    voices = by_kind(trained.network.votes, output.parts[0], torch.from_numpy(sample.fired), places)
    voices *= torch.tensor([float(kind in present) for kind in kinds])
    shares = importance(voices, sample.cause).numpy()
    order = sorted(present, key=lambda kind: -shares[kinds.index(kind)])
    top = tuple(order[:REMOVED])
    draws = [random.choice(present, REMOVED, replace=False).tolist() for _ in range(DRAWS)]
    variants = [without(sample, gone, met) for gone in [(), top, *draws, kinds]]
    _, output = _answers(trained, sample, variants)
    found = margins(output, sample.category, sample.cause)
    drops = found[0] - found[1:-1]
    nothing = CATEGORY_NAMES[int(output.category[-1].argmax())]
    return Outcome(sample.run.category or "", top, drops[0], drops[1:], nothing)


def _answers(
    trained: Trained,
    sample: Sample,
    variants: Sequence[tuple[dict[str, Floats], npt.NDArray[np.float32]]],
) -> tuple[list[float], Output]:
    scores, output = trained.run(
        [sample.graph] * len(variants),
        [nodes for nodes, _ in variants],
        np.stack([fired for _, fired in variants]),
    )
    return [score.logit for score in scores], output


def last_moments(samples: Iterable[Sample]) -> list[Sample]:
    """Of every faulty run its last faulty moment."""
    last: dict[str, Sample] = {}
    for sample in samples:
        if sample.faulty:
            known = last.setdefault(sample.run.id, sample)
            last[sample.run.id] = max(known, sample, key=lambda one: one.frame)
    return list(last.values())


def table(outcomes: Sequence[Outcome], asked: int) -> str:
    """The outcomes in words and as a Markdown table by category."""
    lines = [
        f"Of {asked} faulty runs {len(outcomes)} are named rightly. Of these, the share in which "
        f"removing the {REMOVED} most important components lowers the margin more than removing "
        f"{REMOVED} random ones (mean of {DRAWS} draws); brackets: Wilson 95 % interval; last, the "
        "share of single draws that lower it less:",
        "",
        "| | runs | " + " | ".join(f"margin of the {m} | single draws" for m in MARGINS) + " |",
        "|---|---|" + "---|---|" * len(MARGINS),
        _row("**all**", outcomes),
    ]
    for name in category_order([outcome.category for outcome in outcomes]):
        lines.append(_row(name, [one for one in outcomes if one.category == name]))
    named, count = Counter(one.nothing for one in outcomes).most_common(1)[0]
    lines += [
        "",
        f"With all components removed the category named is {named} in {count} of {len(outcomes)}: "
        f"where evidence is taken away from a fault of {named}, {named} is what remains, and its "
        "margin falls less.",
    ]
    return "\n".join(lines)


def _row(name: str, outcomes: Sequence[Outcome]) -> str:
    cells = []
    for number in range(len(MARGINS)):
        count = sum(bool(one.faithful[number]) for one in outcomes)
        low, high = wilson(count, len(outcomes))
        single = np.mean([one.drops[number] > one.random[:, number] for one in outcomes])
        share = count / len(outcomes)
        cells.append(f"{share:.3f} [{low:.3f}, {high:.3f}] | {single:.3f}")
    return f"| {name} | {len(outcomes)} | {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; exit status 0, or 3 where corpus or weights cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m diagnoser.faithfulness", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=TABLE, help="a corpus, or its feature table")
    parser.add_argument("--weights", type=Path, help="default: the package's own")
    parser.add_argument("--limit", type=int, help="at most this many faulty runs, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes for the features")
    parser.add_argument("--write", action="store_true", help="put the table into the README")
    options = parser.parse_args(arguments)
    torch.set_num_threads(min(2, torch.get_num_threads()))
    try:
        trained = weights.load(options.weights)
        source = sources.read([options.corpus], options.workers)
    except (CorpusError, weights.WeightsError) as error:
        print(error, file=sys.stderr)
        return 3
    random = np.random.default_rng(options.seed)
    faulty = [run for run in source.runs if run.faulty]
    chosen = sorted(random.permutation(len(faulty))[: options.limit].tolist())
    samples = last_moments(source.samples([faulty[at] for at in chosen]))
    outcomes = [found for one in samples if (found := examine(trained, one, random)) is not None]
    if not outcomes:
        print("no faulty run is named rightly: there is nothing to explain", file=sys.stderr)
        return 3
    text = table(outcomes, len(samples))
    print(text)
    if options.write:
        write_between(README, text, BEGIN, END)
    return 0


if __name__ == "__main__":
    sys.exit(main())
