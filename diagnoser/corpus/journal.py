"""What has finished of an order that is still under way.

joblib hands a job's results over when the whole job is done. A build that is ended before loses
none of the finished runs: each order keeps a manifest of its own until its results are in.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from diagnoser.corpus import execute
from diagnoser.corpus.execute import Begun, Order
from diagnoser.corpus.manifest import Audit, Entry, Ledger

UNDER_WAY = "under_way"


def _folder(order: Order) -> Path:
    return order.folder / UNDER_WAY / f"{order.scenario.number:05d}"


def run(order: Order) -> Iterator[Begun | Entry | Audit]:
    """As :func:`diagnoser.corpus.execute.run`, and keeps what is finished."""
    ledger = Ledger(_folder(order))
    for event in execute.run(order):
        if not isinstance(event, Begun):
            ledger.add(event)
        yield event


def close(order: Order) -> None:
    """The order's results are in."""
    shutil.rmtree(_folder(order), ignore_errors=True)


def left_behind(folder: Path) -> list[Entry | Audit]:
    """What orders had finished when an earlier build into ``folder`` was ended."""
    found: list[Entry | Audit] = []
    for part in sorted((folder / UNDER_WAY).glob("*")):
        ledger = Ledger(part)
        found += [*ledger.entries, *ledger.audits]
    return found


def clear(folder: Path) -> None:
    """What was left behind is in."""
    shutil.rmtree(folder / UNDER_WAY, ignore_errors=True)
