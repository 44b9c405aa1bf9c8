"""What ``python -m diagnoser.evaluate --check`` does: trust no table, do some of it again.

From what is kept with the code alone: one fold is trained again on the feature table and its
answers are compared with those kept; the shipped weights are scored on the final hold-out's table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diagnoser import moments, sources, table
from diagnoser.figures import figures
from diagnoser.fitting import Settings, fit
from diagnoser.holdout import plan
from diagnoser.manifest import CorpusError
from diagnoser.report import HEAD, row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diagnoser.holdout import Fold
    from diagnoser.predictions import Evaluation
    from diagnoser.replay import Prediction
    from diagnoser.weights import Trained

TABLE = Path(__file__).parent / "corpus" / "table"
FINAL = Path(__file__).parent / "corpus" / "final"

ALIKE = 0.95
"""Share of the runs whose verdict and category must be those kept. Kept answers are the rolling
engine's, these are of single moments; and another machine rounds otherwise."""


@dataclass(frozen=True)
class Comparison:
    """Answers of now beside those kept of the same runs. ``kept`` is empty where there are none."""

    title: str
    now: tuple[Prediction, ...]
    kept: tuple[Prediction, ...]

    @property
    def alike(self) -> float:
        """Share of the runs with the same verdict and category; NaN where nothing is kept."""
        kept = {p.id: (p.faulty, p.category) for p in self.kept}
        same = [kept[p.id] == (p.faulty, p.category) for p in self.now if p.id in kept]
        return sum(same) / len(same) if same else float("nan")

    @property
    def holds(self) -> bool:
        """Whether the answers of now are those kept; also where nothing is kept."""
        return not self.alike < ALIKE

    def text(self) -> str:
        """Both rows, and the share that is alike."""
        lines = [f"{self.title}:", "", *HEAD, row("now, at single moments", figures(self.now))]
        if not self.kept:
            return "\n".join([*lines, "", "No answers are kept to compare these with."])
        lines += [row("kept, the rolling engine's", figures(self.kept)), ""]
        verdict = "as it should be" if self.holds else f"under {ALIKE}: something is not the same"
        lines.append(
            f"Verdict and category are the same in {self.alike:.3f} of the runs, {verdict}."
        )
        return "\n".join(lines)


def smallest_fold(folds: Sequence[Fold], kept: Evaluation) -> Fold:
    """The fold that trains on least, of those whose answers are kept. Raises
    :class:`~diagnoser.manifest.CorpusError` where there is none."""
    known = {
        (view, name)
        for (view, variant), parts in kept.answers.items()
        if not variant
        for name in parts
    }
    mine = [fold for fold in folds if not fold.variant and (fold.view, fold.name) in known]
    if not mine:
        raise CorpusError(
            "the kept answers hold out other groups than the table has: evaluate its corpus anew"
        )
    return min(mine, key=lambda fold: len(fold.training))


def train_again(
    kept: Evaluation, folder: Path, settings: Settings, report: Callable[[str], None]
) -> Comparison:
    """Train one fold from the feature table and answer for the runs it held out.

    Raises :class:`~diagnoser.manifest.CorpusError` where the table is missing or of another corpus.
    """
    source = sources.load([there(folder, "feature table")], workers=1)
    if source.checksum != kept.about.get("corpus"):
        raise CorpusError(
            f"the kept answers are of corpus {kept.about.get('corpus')}, the table in {folder} of "
            f"{source.checksum}: evaluate that corpus anew, or name its table with --table"
        )
    count = len(kept.answers.get(("pairs", ""), {})) or 1
    fold = smallest_fold(plan(source.runs, count, settings), kept)
    report(f"training without {fold.name} on {len(fold.training)} of {len(source.runs)} runs")
    trained = fit(source.samples(fold.training), settings, report)
    now = moments.answers(trained, source.samples(fold.held))
    return Comparison(
        f"Trained again, {fold.view} held out: {fold.name}",
        tuple(now),
        tuple(kept.answers[fold.view, ""][fold.name]),
    )


def score_final(kept: Evaluation, folder: Path, trained: Trained, digest: str) -> Comparison:
    """The weights' answers to the final hold-out's table, beside those kept of the same weights
    (``digest`` of their file). Raises :class:`~diagnoser.manifest.CorpusError` where the table is
    missing, not the final hold-out's, or what the weights were trained on."""
    found = table.read(there(folder, "feature table of the final hold-out"))
    if not all(run.final for run in found.runs):
        raise CorpusError(f"{folder} is not the final hold-out: weights may have seen its runs")
    if found.checksum == trained.about.get("corpus_checksum"):
        raise CorpusError(f"the weights were trained on {folder}, which none may have seen")
    same = kept.about.get("final", {}).get("weights") == digest
    return Comparison(
        "The shipped weights on the final hold-out",
        tuple(moments.answers(trained, found.samples())),
        tuple(kept.all("final")) if same else (),
    )


def there(folder: Path, what: str) -> Path:
    """The folder. Raises :class:`~diagnoser.manifest.CorpusError` where it holds no table."""
    if not table.is_table(folder):
        raise CorpusError(
            f"no {what} in {folder}: make one with `python -m diagnoser.corpus pack DIR --out "
            f"{folder}`"
        )
    return folder
