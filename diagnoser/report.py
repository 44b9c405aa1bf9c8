"""The evaluation as Markdown, and its place in the README."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diagnoser.figures import (
    Figures,
    by_class,
    category_order,
    category_pairs,
    cause_pairs,
    contract_figures,
    figures,
)
from diagnoser.manifest import LINEAGES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from diagnoser.extract import Extracted
    from diagnoser.replay import Prediction

BEGIN = "<!-- evaluation: begin, written by python -m diagnoser.evaluate -->"
END = "<!-- evaluation: end -->"

HEAD = (
    "| | runs (faulty / clean) | detection F1 (P / R) | category macro-F1 | root cause macro-F1 "
    "| layer top-1 | clean runs ever flagged |",
    "|---|---|---|---|---|---|---|",
)


def _row(name: str, f: Figures) -> str:
    low, high = f.interval
    share = 100 * f.clean_flagged / f.clean if f.clean else float("nan")
    layer = f"{f.layer_right}/{f.layer_runs}" if f.layer_runs else "–"
    if f.layer_runs:
        layer = f"{f.layer_right / f.layer_runs:.3f} ({layer})"
    return (
        f"| {name} | {f.faulty} / {f.clean} "
        f"| {f.detection.f1:.3f} ({f.detection.precision:.3f} / {f.detection.recall:.3f}) "
        f"| {f.category_f1:.3f} | {f.cause_f1:.3f} | {layer} "
        f"| {f.clean_flagged} of {f.clean}: {share:.1f} % [{100 * low:.1f}, {100 * high:.1f}] |"
    )


def _all(parts: dict[str, list[Prediction]]) -> list[Prediction]:
    return [prediction for predictions in parts.values() for prediction in predictions]


def report(found: dict[str, dict[str, list[Prediction]]], extracted: Extracted, seed: int) -> str:
    """The table of all views, and one line per category. Views are those of ``evaluate.plan``."""
    runs = extracted.runs
    pairs = len({run.group for run in runs})
    lines = [
        f"Corpus {extracted.manifest.checksum}: {len(runs)} runs, {pairs} model-task pairs, "
        f"{len({run.family for run in runs})} families; seed {seed}. Every figure is on runs whose "
        "model-task pair (or family, with its kin) trained nothing; a run's answer is the engine's "
        "state at the end of its trace. Brackets: Wilson 95 % interval.",
        "",
        *HEAD,
    ]
    if "pairs" in found:
        held = _all(found["pairs"])
        lines.append(_row("model-task pairs held out", figures(held)))
        if "ablation" in found:
            flat = figures(_all(found["ablation"]))
            lines.append(_row("… without message passing", flat))
        lines.append(_row("… contracts alone, by rule", contract_figures(held)))
    for family, predictions in found.get("families", {}).items():
        kin = [name for name, lineage in LINEAGES.items() if lineage == family]
        name = ", ".join([family, *kin])
        lines.append(_row(f"family left out: {name}", figures(predictions)))
    if "families" in found:
        lines.append(_row("all families left out in turn", figures(_all(found["families"]))))
    view = "pairs" if "pairs" in found else "families"
    lines += ["", *_categories(_all(found[view]))]
    early = sum(p.ever_flagged for p in _all(found[view]) if p.truth)
    faulty = sum(1 for p in _all(found[view]) if p.truth)
    lines += ["", f"Faulty runs flagged before their fault began: {early} of {faulty}."]
    return "\n".join(lines)


def _categories(predictions: Sequence[Prediction]) -> list[str]:
    categories = by_class(category_pairs(predictions))
    lines = [
        "| category | runs | detected | category P / R / F1 | root causes right |",
        "|---|---|---|---|---|",
    ]
    for name in category_order(list(categories)):
        own = [p for p in predictions if p.truth and p.truth.split("/")[0] == name]
        right = sum(truth == answer for truth, answer in cause_pairs(own))
        r = categories[name]
        precision = f"{r.precision:.3f}" if r.precision == r.precision else "–"
        lines.append(
            f"| {name} | {len(own)} | {sum(p.faulty for p in own)} "
            f"| {precision} / {r.recall:.3f} / {r.f1:.3f} | {right} |"
        )
    return lines


def write_between(path: Path, text: str) -> None:
    """Put ``text`` between the markers of a file; the markers are added where missing."""
    old = path.read_text(encoding="utf-8") if path.is_file() else "# The diagnoser\n"
    block = f"{BEGIN}\n{text}\n{END}"
    if BEGIN in old and END in old:
        before, rest = old.split(BEGIN, 1)
        new = before + block + rest.split(END, 1)[1]
    else:
        new = old.rstrip("\n") + "\n\n" + block + "\n"
    path.write_text(new, encoding="utf-8")
