"""A diagnosis as plain text, for the commands without a screen."""

from __future__ import annotations

import math

from diagnoser.crashes import Crash
from diagnoser.diagnosis import Diagnosis

_WORDS = {"faulty": "FAULTY", "healthy": "HEALTHY", "insufficient": "NOT ENOUGH EVIDENCE YET"}


def headline(diagnosis: Diagnosis) -> str:
    """One line: verdict, probability, category, root cause, layers, since when."""
    text = _WORDS[diagnosis.verdict]
    if diagnosis.verdict != "insufficient" and math.isfinite(diagnosis.probability):
        text += f" (probability of a fault {diagnosis.probability:.2f})"
    if diagnosis.verdict != "faulty":
        return text
    if diagnosis.category:
        text += ", category unsure, likeliest" if diagnosis.unsure else ":"
        text += f" {diagnosis.category}{_share(diagnosis.category_probability)}"
    if diagnosis.root_cause:
        text += f" / {diagnosis.root_cause}{_share(diagnosis.root_cause_probability)}"
    if diagnosis.layers:
        word = "layer" if len(diagnosis.layers) == 1 else "layers"
        text += f" at {word} {', '.join(map(str, diagnosis.layers))}"
    if diagnosis.first_flagged_step is not None:
        text += f", since step {diagnosis.first_flagged_step}"
    return text


def full_text(diagnosis: Diagnosis) -> str:
    """Headline, evidence, other candidates and repair, over several lines."""
    lines = [
        f"run {diagnosis.run}: {diagnosis.frames} sampled steps, up to step {diagnosis.last_step}",
        headline(diagnosis),
    ]
    if diagnosis.crash is not None:
        lines += ["", *crash_text(diagnosis.crash)]
    if diagnosis.evidence:
        lines += ["", "Evidence:"]
        lines += [f"  - {item.text} [{item.site}/{item.metric}]" for item in diagnosis.evidence]
    others = [c for c in diagnosis.ranking if c.root_cause != diagnosis.root_cause][:3]
    if diagnosis.verdict == "faulty" and others:
        lines += ["", "Less likely:"]
        lines += [f"  - {c.category} / {c.root_cause}{_share(c.probability)}" for c in others]
    if diagnosis.repair:
        lines += ["", "What to try:", f"  {diagnosis.repair}"]
    return "\n".join(lines)


def crash_text(crash: Crash) -> list[str]:
    """What ended the run, and what it likely was."""
    lines = [f"The training died at step {crash.step}: {crash.text}"]
    if crash.category is not None:
        lines.append(f"  likely {crash.category}: {crash.reason}")
    return lines


def _share(probability: float | None) -> str:
    if probability is None or not math.isfinite(probability):
        return ""
    return f" ({probability:.2f})"
