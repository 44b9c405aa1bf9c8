"""The evaluation as Markdown tables, and their place in the README."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diagnoser.ablation import ABLATIONS
from diagnoser.confusion import counts, picture
from diagnoser.figures import (
    Figures,
    Rates,
    by_class,
    category_order,
    category_pairs,
    cause_pairs,
    contract_figures,
    figures,
    quantile,
)
from diagnoser.holdout import TREES
from diagnoser.manifest import LINEAGES
from diagnoser.peer import beside
from diagnoser.taxonomy import ROOT_CAUSE_KEYS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from diagnoser.predictions import Evaluation
    from diagnoser.replay import Prediction

README = Path(__file__).parent / "README.md"

BEGIN = "<!-- evaluation: begin, written by python -m diagnoser.evaluate -->"
END = "<!-- evaluation: end -->"

HEAD = (
    "| | runs (faulty / clean) | detection F1 (P / R) | category macro-F1 | root cause macro-F1 "
    "| layer top-1 | clean runs ever flagged |",
    "|---|---|---|---|---|---|---|",
)


def row(name: str, f: Figures) -> str:
    """A line under :data:`HEAD`. Without faulty runs there is nothing to find: a dash."""
    low, high = f.interval
    found = f.detection
    told = ("–", "–", "–")
    if f.faulty:
        detection = f"{found.f1:.3f} ({found.precision:.3f} / {found.recall:.3f})"
        told = (detection, f"{f.category_f1:.3f}", f"{f.cause_f1:.3f}")
    share = 100 * f.clean_flagged / f.clean if f.clean else float("nan")
    layer = f"{f.layer_right}/{f.layer_runs}" if f.layer_runs else "–"
    if f.layer_runs:
        layer = f"{f.layer_right / f.layer_runs:.3f} ({layer})"
    flagged = f"{f.clean_flagged} of {f.clean}: {share:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return f"| {name} | {f.faulty} / {f.clean} | {' | '.join(told)} | {layer} | {flagged} |"


VIEWS = {
    "pairs": "model-task pairs held out",
    "families": "families left out in turn, with their kin",
    "sizes": "the largest models held out",
    "operators": "some operators of each root cause held out",
    "final": "the final hold-out: other families, tasks, sizes; the shipped weights",
    "fresh": "trainings built since, of the families and tasks learnt from; the shipped weights",
}


COMPARED = {view: f"{view}, compared" for view in ("pairs", "families", "sizes", "operators")}
"""By view the name under which the answers of :mod:`diagnoser.compare` are kept."""


def pictures(found: Evaluation, folder: Path) -> dict[str, Path]:
    """Write a picture of what is taken for what, for every view; the files by title."""
    written = {}
    for view, title in VIEWS.items():
        if held := found.all(view):
            words = f"{title[0].upper()}{title[1:]}: {len(held)} runs"
            path = folder / f"confusion-{view}.svg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(picture(counts(held), words), encoding="utf-8")
            written[words] = path
    return written


def report(
    found: Evaluation,
    pictured: Mapping[str, str] | None = None,
    unseen: Collection[str] = (),
) -> str:
    """The tables of all views, of categories and of root causes. ``pictured``: where the pictures
    of :func:`pictures` lie, by title. ``unseen``: operators declared unobservable, without which
    every view is told once more."""
    about = found.about
    lines = [
        f"Corpus {about['corpus']}: {about['runs']} runs, {about['pairs']} model-task pairs, "
        f"{len(about['families'])} families; seed {about['seed']}.{_asked(about)} Every figure is "
        "on runs that trained nothing, nor did any of the group held out; a run's answer is the "
        "engine's state at the end of its trace. Brackets: Wilson 95 % interval.",
        "",
        *HEAD,
    ]
    for view, title in VIEWS.items():
        held = found.all(view)
        if not held:
            continue
        lines.append(row(f"**{title}**", figures(held)))
        shown = [p for p in held if p.operator not in unseen]
        if len(shown) < len(held):
            words = f"… without what no metric shows ({', '.join(sorted(unseen))})"
            lines.append(row(words, figures(shown)))
        lines.append(row("… contracts alone, by rule", contract_figures(held)))
        if view == "families":
            for name, answers in found.answers[view, ""].items():
                left = ", ".join([name, *_kin(name, about["families"])])
                lines.append(row(f"… {left} left out", figures(answers)))
    main = next((view for view in VIEWS if found.all(view)), None)
    if main is None:
        return "\n".join(lines)
    held = found.all(main)
    now = figures(held)
    lines += ["", f"With {VIEWS[main]}:", "", *_categories(held), "", *beside(held)]
    lines += ["", *_weakest(held), "", *_every_cause(held)]
    lines += [
        "",
        f"Faulty runs flagged before their fault began: {now.early} of {now.faulty}. "
        f"Calibration error {now.calibration_error:.3f}.",
    ]
    if now.delays:
        middle, late = quantile(now.delays, 0.5), quantile(now.delays, 0.9)
        lines.append(
            f"Faults that begin within a run: the right category after {middle:.0f} sampled steps "
            f"in the median, {late:.0f} at the 90th percentile, in {len(now.delays)} of "
            f"{now.mid_run} at all."
        )
    lines += _compared(found)
    for title, place in (pictured or {}).items():
        lines += ["", f"![{title}]({place})"]
    return "\n".join(lines)


def _kin(lineage: str, families: Sequence[str]) -> list[str]:
    return [name for name, root in LINEAGES.items() if root == lineage and name in families]


def _compared(found: Evaluation) -> list[str]:
    """The table of :mod:`diagnoser.compare`; empty where nothing was compared."""
    lines: list[str] = []
    for view, name in COMPARED.items():
        if held := found.all(name):
            lines.append(row(f"**{VIEWS[view]}**", figures(held)))
            lines.append(row("… contracts alone, by rule", contract_figures(held)))
            for variant, words in {
                TREES: "boosted trees on the same features",
                **ABLATIONS,
            }.items():
                if other := found.all(name, variant):
                    lines.append(row(f"… {words}", figures(other)))
    if not lines:
        return []
    return [
        "",
        "What the network is good for (`python -m diagnoser.compare`): it and its baselines, "
        "trained on the same runs and asked about the same ones, all at single moments of the "
        f"feature table{_of_others(found.about)}. Clean runs ever flagged: at one of five moments.",
        "",
        *HEAD,
        *lines,
    ]


def _categories(predictions: Sequence[Prediction]) -> list[str]:
    categories = by_class(category_pairs(predictions))
    lines = [
        "| category | runs | detected | category P / R / F1 | root causes right |",
        "|---|---|---|---|---|",
    ]
    for name in category_order(list(categories)):
        own = [p for p in predictions if p.truth and p.truth.split("/")[0] == name]
        right = sum(truth == answer for truth, answer in cause_pairs(own))
        lines.append(
            f"| {name} | {len(own)} | {sum(p.faulty for p in own)} "
            f"| {_told(categories[name])} | {right} |"
        )
    return lines


def _asked(about: Mapping[str, Any]) -> str:
    """A sentence where others were asked about than were learnt from."""
    if about.get("asked", about["corpus"]) == about["corpus"]:
        return ""
    return (
        f" Asked about are {about['answered']} runs whose traces were at hand, each by a network "
        "that its group was held out from."
    )


def _of_others(about: Mapping[str, Any]) -> str:
    """What the comparison is of, where that is not the corpus of the tables above."""
    of = about.get("compared", {})
    if of.get("corpus") == about["corpus"]:
        return ""
    return f", as it was with {of.get('runs')} runs (corpus {of.get('corpus')})"


def _weakest(predictions: Sequence[Prediction], count: int = 10) -> list[str]:
    """The root causes that are told worst, and what they are taken for."""
    causes = by_class(cause_pairs(predictions))
    worst = sorted(causes, key=lambda name: causes[name].f1)[:count]
    title = f"The {len(worst)} root causes of {len(causes)} that are told worst:"
    return [title, "", *_causes(predictions, worst)]


def _every_cause(predictions: Sequence[Prediction]) -> list[str]:
    """All root causes, in the taxonomy's order."""
    asked = {truth for truth, _ in cause_pairs(predictions)}
    names = [key for key in ROOT_CAUSE_KEYS if key in asked]
    title = f"<summary>All {len(names)} root causes</summary>"
    return ["<details>", title, "", *_causes(predictions, names), "", "</details>"]


def _causes(predictions: Sequence[Prediction], names: Sequence[str]) -> list[str]:
    pairs = cause_pairs(predictions)
    causes = by_class(pairs)
    lines = ["| root cause | runs | P / R / F1 | taken for |", "|---|---|---|---|"]
    for name in names:
        answers = Counter(answer or "healthy" for truth, answer in pairs if truth == name)
        total = sum(answers.values())
        others = ", ".join(f"{a} {n}" for a, n in answers.most_common(4) if a != name)
        lines.append(f"| {name} | {total} | {_told(causes[name])} | {others} |")
    return lines


def _told(r: Rates) -> str:
    precision = f"{r.precision:.3f}" if r.precision == r.precision else "–"
    return f"{precision} / {r.recall:.3f} / {r.f1:.3f}"


def write_between(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Put ``text`` between the markers of a file; the markers are added where missing."""
    old = path.read_text(encoding="utf-8") if path.is_file() else "# The diagnoser\n"
    block = f"{begin}\n{text}\n{end}"
    if begin in old and end in old:
        before, rest = old.split(begin, 1)
        new = before + block + rest.split(end, 1)[1]
    else:
        new = old.rstrip("\n") + "\n\n" + block + "\n"
    path.write_text(new, encoding="utf-8")
