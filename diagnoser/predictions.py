"""The answers of an evaluation, kept so that every table can be computed from them again.

A gzipped file of JSON lines: first what was evaluated, then a line per answer.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from diagnoser.replay import Prediction

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


class PredictionsError(ValueError):
    """Predictions that cannot be read. The message says what to do."""


@dataclass
class Evaluation:
    """``about``: corpus checksum, counts of runs, seed. ``answers``: by view and variant, by what
    was held out."""

    about: dict[str, Any]
    answers: dict[tuple[str, str], dict[str, list[Prediction]]] = field(default_factory=dict)

    def add(self, view: str, variant: str, held_out: str, predictions: list[Prediction]) -> None:
        self.answers.setdefault((view, variant), {})[held_out] = predictions

    def adopt(self, other: Evaluation, views: Collection[str], of: str) -> None:
        """Take over another's answers in some views, and what it says of them, ``about[of]``."""
        if of in other.about:
            self.about[of] = other.about[of]
            self.answers |= {key: a for key, a in other.answers.items() if key[0] in views}

    def all(self, view: str, variant: str = "") -> list[Prediction]:
        """Of all that was held out in one view, one after the other; empty where none was."""
        return [p for found in self.answers.get((view, variant), {}).values() for p in found]


def save(evaluation: Evaluation, path: Path) -> None:
    """Write all answers; the same answers give the same bytes."""
    lines = [json.dumps({"about": evaluation.about}, sort_keys=True)]
    for (view, variant), parts in evaluation.answers.items():
        for name, predictions in parts.items():
            head = {"view": view, "variant": variant, "held_out": name}
            lines += [json.dumps(head | p.as_dict(), sort_keys=True) for p in predictions]
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data, mtime=0))


def load(path: Path) -> Evaluation:
    """Read what :func:`save` wrote. Raises :class:`PredictionsError`."""
    try:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        evaluation = Evaluation(json.loads(lines[0])["about"])
        for line in lines[1:]:
            row = json.loads(line)
            view, variant, name = (row.pop(key) for key in ("view", "variant", "held_out"))
            known = evaluation.answers.setdefault((view, variant), {}).setdefault(name, [])
            known.append(_prediction(row))
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
        raise PredictionsError(
            f"{path} holds no predictions of this version ({error}): make them again with "
            "`python -m diagnoser.evaluate --corpus DIR`"
        ) from None
    return evaluation


def _prediction(row: dict[str, Any]) -> Prediction:
    row["true_layers"], row["layers"] = tuple(row["true_layers"]), tuple(row["layers"])
    return Prediction(**row)
