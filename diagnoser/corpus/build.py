"""Builds the corpus: scenarios of the plan, in parallel processes, until time or number is up."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from diagnoser.corpus import CorpusError, execute, journal, pool
from diagnoser.corpus.execute import Begun, Order
from diagnoser.corpus.manifest import Audit, Entry, Ledger
from diagnoser.corpus.plan import Scenario, final_scenarios, scenarios

PATIENCE_SECONDS = 180.0
"""A run takes a few seconds; one that is silent this long hangs."""


@dataclass
class Tally:
    """How far the build is."""

    clean: int = 0
    faulty: int = 0
    discarded: int = 0
    failed: int = 0

    @property
    def runs(self) -> int:
        return self.clean + self.faulty

    def count(self, line: Entry | Audit) -> None:
        if isinstance(line, Entry):
            self.clean += line.kind == "clean"
            self.faulty += line.kind == "faulty"
        elif line.event in ("discarded", "unfit"):
            self.discarded += 1
        else:
            self.failed += 1


def _claim(folder: Path, seed: int, final: bool, after: int) -> None:
    """A folder belongs to one plan; mixing two would hold two runs of one id, or let the final
    hold-out be trained on."""
    file = folder / "plan.json"
    folder.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        claim = {"seed": seed, "final": final, "after": after}
        file.write_bytes(msgspec.json.encode(claim))
        return
    plan = msgspec.json.decode(file.read_bytes())
    begun, held, first = plan.get("seed"), plan.get("final", False), plan.get("after", -1)
    if (begun, held, first) != (seed, final, after):
        beyond = f" --after a table of {first + 1} scenarios" if first >= 0 else ""
        raise CorpusError(
            f"{folder} was begun with --seed {begun}{' --final' if held else ''}{beyond}: pass the "
            "same, or choose another folder"
        )


class _Queue:
    """Orders to hand out: those whose process was lost first, then the plan.

    Asked by threads of joblib's, while the build takes results in.
    """

    def __init__(
        self, plan: Iterator[Scenario], folder: Path, settled: set[str], stop_at: float
    ) -> None:
        self._plan = plan
        self._again: deque[Scenario] = deque()
        self._folder = folder
        self._stop_at = stop_at
        self.settled = settled
        self.missing: int | None = None
        """Runs until the number that was asked for; None where none was."""

    def take(self) -> Order | None:
        """The next scenario with something left to run; None once time or number is up."""
        while time.time() < self._stop_at and (self.missing is None or self.missing > 0):
            scenario = self._again.popleft() if self._again else next(self._plan, None)
            if scenario is None:
                return None
            settled = frozenset(branch.id for branch in scenario.branches) & self.settled
            if len(settled) < len(scenario.branches):
                return Order(scenario, self._folder, settled, self._stop_at, self.missing)
        return None

    def again(self, scenario: Scenario) -> None:
        self._again.append(scenario)


def build(
    folder: Path,
    *,
    seed: int = 0,
    final: bool = False,
    minutes: float = 40.0,
    jobs: int = 2,
    limit: int | None = None,
    after: int = -1,
    retry: bool = False,
    report: Callable[[Tally, str], None] = lambda tally, run: None,
    work: Callable[[Order], Iterable[Any]] = journal.run,
    patience: float = PATIENCE_SECONDS,
) -> Tally:
    """Runs the plan of ``seed`` into ``folder`` and returns what the folder then holds.

    ``final``: the plan of the final hold-out, which is never trained on.
    Goes on where an earlier build stopped. Ends after ``minutes``, or once ``limit`` runs are
    kept (a few more where several jobs end at once). Scenarios up to number ``after`` are left
    out: another folder had them. ``retry`` runs again what crashed.
    ``report(tally, id)`` is called for each run, scenario by scenario.
    ``work`` is what a process does with an order; it must be importable. ``jobs``: orders at a
    time, by joblib (see :mod:`diagnoser.corpus.pool`).
    Raises :class:`CorpusError` where the folder was begun with another plan.
    """
    _claim(folder, seed, final, after)
    ledger = Ledger(folder)
    settled = ledger.settled(retry)
    for line in journal.left_behind(folder):
        if line.id not in settled:
            ledger.add(line)
            settled.add(line.id)
    journal.clear(folder)
    tally = Tally()
    for entry in ledger.entries:
        tally.count(entry)
    for audit in ledger.audits:
        tally.count(audit)
    plan = final_scenarios(seed) if final else scenarios(seed)
    plan = (scenario for scenario in plan if scenario.number > after)
    queue = _Queue(plan, folder, settled, stop_at=time.time() + minutes * 60)

    def settle(line: Entry | Audit) -> None:
        if line.id in settled:
            return
        ledger.add(line)
        settled.add(line.id)
        tally.count(line)
        report(tally, line.id)

    def count_missing() -> bool:
        """Whether there are runs to make; tells the queue."""
        queue.missing = None if limit is None else max(0, limit - tally.runs)
        return queue.missing != 0

    if not count_missing():
        return tally
    with closing(pool.run(queue.take, work, jobs=jobs, patience=patience)) as outcomes:
        for outcome in outcomes:
            _take_in(outcome, queue, settle)
            if not count_missing():
                break
    return tally


def _take_in(
    outcome: pool.Outcome[Order], queue: _Queue, settle: Callable[[Entry | Audit], None]
) -> None:
    """Settles an order's runs. Where its process was lost, one branch is to blame; the others
    get another process."""
    order = outcome.job
    for content in outcome.contents:
        if isinstance(content, Entry | Audit):
            settle(content)
    if outcome.failure is not None:
        last = outcome.contents[-1] if outcome.contents else None
        blamed = last.id if isinstance(last, Begun) else None
        for audit in execute.lost(order, blamed, outcome.failure):
            settle(audit)
        queue.again(order.scenario)
    journal.close(order)
