"""What the diagnosis said of both versions of a case, judged against what it should have said."""

from __future__ import annotations

from dataclasses import dataclass

from diagnoser.corpus.realworld.case import Case
from diagnoser.corpus.realworld.recording import Answer


@dataclass(frozen=True)
class Outcome:
    """``buggy``, ``fixed``: the answers to the two versions."""

    case: Case
    buggy: Answer
    fixed: Answer

    @property
    def by_crash(self) -> bool:
        """The run died, and the verdict on its frames was not that it is faulty."""
        return self.buggy.end.verdict != "faulty" and self.buggy.end.crash is not None

    @property
    def detected(self) -> bool:
        """Called faulty at its end, or its crash was told."""
        return self.buggy.end.verdict == "faulty" or self.by_crash

    @property
    def category(self) -> str | None:
        """The one named, by the diagnosis or else by the report of the crash."""
        end = self.buggy.end
        return end.crash.category if self.by_crash and end.crash is not None else end.category

    @property
    def root_cause(self) -> str | None:
        """The one named; the report of a crash names none."""
        return self.buggy.end.root_cause

    @property
    def category_right(self) -> bool:
        return self.detected and self.category == self.case.category

    @property
    def root_cause_right(self) -> bool:
        return self.category_right and self.root_cause == self.case.root_cause

    @property
    def layers_right(self) -> bool | None:
        """Whether the fault's layers are those named, no more and no less; None where it sits in
        all layers or none."""
        if not self.case.layers:
            return None
        return set(self.buggy.end.layers) == set(self.case.layers)

    @property
    def fixed_left_alone(self) -> bool:
        """The fixed version was not called faulty at any frame."""
        return not self.fixed.ever

    @property
    def told_apart(self) -> bool:
        """Detected, and the fixed version left alone: what was seen was the fault."""
        return self.detected and self.fixed_left_alone

    @property
    def sign(self) -> str:
        """The earliest contract that fires on the buggy version, ``mask@0/leaked``; empty where
        none does."""
        firings = self.buggy.firings
        return f"{firings[0].site}/{firings[0].metric}" if firings else ""
