"""What ``watch`` says: batches in, the changes worth a line out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from diagnoser.diagnosis import Diagnosis
from monitor.diagnosing import EngineFactory
from monitor.diagnosis_text import headline
from monitor.sources.source import Batch
from monitor.stream_diagnosis import StreamDiagnosis
from probe.schema import End, Event, Header, Record

Change = dict[str, Any]


class Watcher:
    """Turns batches into changes. A change is a dictionary with ``kind`` and ``time``."""

    def __init__(
        self, factory: EngineFactory | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._stream = StreamDiagnosis(factory)
        self._clock = clock
        self._link = ""
        self._text = ""
        self._state = ""
        self._said: tuple[str, str | None, str | None] = ("", None, None)
        self._failed = False
        self.over = False
        """The run ended or was lost, and all it sent was taken in."""

    @property
    def diagnosis(self) -> Diagnosis | None:
        """As it stands now."""
        return self._stream.current

    def take(self, batch: Batch) -> Iterator[Change]:
        """The changes that this batch brought, in order."""
        self._text = batch.text or self._text
        if batch.link != self._link and batch.link not in ("lost", "ended"):
            yield from self._linked(batch)
        for record in batch.records:
            yield from self._recorded(record)
        if batch.state and batch.state != self._state:
            self._state = batch.state
            yield self._change("state", state=batch.state)
        if batch.link in ("lost", "ended") and not batch.records:
            if batch.link != self._link:
                yield from self._linked(batch)
            self.over = True

    def _linked(self, batch: Batch) -> Iterator[Change]:
        self._link = batch.link
        text, self._text = self._text, ""
        yield self._change("link", link=batch.link, text=text)

    def _recorded(self, record: Record) -> Iterator[Change]:
        diagnosis, failure = self._diagnosed(record)
        if isinstance(record, Header):
            yield self._change(
                "run",
                run=record.run,
                name=record.name,
                host=record.host,
                pid=record.pid,
                model=record.anatomy.model,
                layers=record.anatomy.layers,
                parameters=record.anatomy.parameters,
            )
        elif isinstance(record, Event):
            yield self._change("event", step=record.step, event=record.kind, text=record.text)
        elif isinstance(record, End):
            yield self._change("end", step=record.step, reason=record.reason)
        if failure:
            yield self._change("note", text=f"no diagnosis: {failure}")
        if diagnosis is not None:
            said = (diagnosis.verdict, diagnosis.category, diagnosis.root_cause)
            if said != self._said:
                self._said = said
                yield self._change(
                    "diagnosis",
                    step=diagnosis.last_step,
                    text=headline(diagnosis),
                    diagnosis=diagnosis,
                )

    def _diagnosed(self, record: Record) -> tuple[Diagnosis | None, str]:
        """The diagnosis after the record, or why there will be none from now on."""
        if self._failed and not isinstance(record, Header):
            return None, ""
        try:
            self._failed = False
            return self._stream.take(record), ""
        except Exception as error:  # following the run is worth something without a verdict
            self._failed = True
            return None, " ".join((str(error) or type(error).__name__).split())

    def _change(self, kind: str, **fields: Any) -> Change:
        return {"kind": kind, "time": self._clock(), **fields}


def as_json(change: Change) -> str:
    """One line of JSON; NaN becomes null."""
    return msgspec.json.encode(change).decode()


def as_text(change: Change) -> str:
    """One line for a person."""
    clock = time.strftime("%H:%M:%S", time.localtime(change["time"]))
    return f"{clock} {_sentence(change)}"


def _sentence(change: Change) -> str:
    kind = change["kind"]
    if kind == "run":
        return (
            f"run {change['name']} ({change['run']}): {change['model']}, {change['layers']} layers"
        )
    if kind == "link":
        return f"link {change['link']}" + (f": {change['text']}" if change["text"] else "")
    if kind == "state":
        return f"training {change['state']}"
    if kind == "event":
        return f"step {change['step']} event {change['event']}: {change['text']}"
    if kind == "end":
        return f"step {change['step']} end: {change['reason']}"
    if kind == "note":
        return str(change["text"])
    return f"step {change['step']} {change['text']}"
