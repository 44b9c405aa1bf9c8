"""The list of runs to choose from."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from monitor import glyphs
from monitor.charts.line import Line, Piece, fitted
from monitor.formatting import ago, clipped, left_clipped
from monitor.run_catalogue import ListedRun
from monitor.short_verdict import in_words
from monitor.widgets.list_pane import ListPane
from monitor.widgets.list_window import first_shown
from monitor.widgets.pane_title import set_title

_NAME, _RUN, _AGE = 22, 30, 10
_SPARE = 5
"""Free lines from which on more is told of the chosen run."""


def hint(again: str) -> tuple[str, ...]:
    """What to do where no run was found; ``again``: the key that looks again."""
    return (
        "No live run and no recorded one. Put one line into the training script:",
        "",
        "    import probe; probe.attach(model, optimizer)",
        "",
        f"start it, and press {again}. To see how it looks first: defaultpp-monitor demo",
    )


def details(
    listed: ListedRun, another: str, width: int, verdict: Piece | None = None
) -> tuple[Line, ...]:
    """What was found of the chosen run, where it is, and how one that is not listed is opened: by
    the key ``another``."""
    told = [("run", listed.run)]
    if listed.path is not None:
        told.append(("trace", str(listed.path)))
    if listed.entry is not None:
        told += [("address", listed.entry.control), ("trace", listed.entry.trace or "not stored")]
    told_of = textwrap.wrap(verdict[0], max(10, width - 9)) if verdict is not None else []
    role = verdict[1] if verdict is not None else "fg"
    return (
        (),
        *(
            ((f"{'' if row else 'verdict':<9}", "muted"), (part, role))
            for row, part in enumerate(told_of)
        ),
        *(
            ((f"{name:<9}", "muted"), (left_clipped(value, width - 9), "fg"))
            for name, value in told
        ),
        (
            (f"{another:<9}", "accent bold"),
            (
                "opens one that is not listed: ssh://host/run, or a trace by its path",
                "muted",
            ),
        ),
    )


def lines_wanted(runs: int) -> int:
    """Lines in which all of a list and the details of the chosen run have room."""
    return runs + 9


def heading(width: int) -> Line:
    """What stands in the columns."""
    run = f"{'run':<{_RUN}} " if width > 100 else ""
    text = f"{'':<16}{'name':<{_NAME}} {run}{'when':>{_AGE}}  what"
    return fitted([(text, "muted")], width)


def run_line(
    listed: ListedRun,
    width: int,
    chosen: bool,
    current: bool,
    letter: str = "",
    verdict: Piece | None = None,
) -> Line:
    """Sign and word of its kind, name, id, age, verdict, detail; ``letter`` where compared."""
    live = listed.kind == "live"
    sign = glyphs.LIVE if live else glyphs.ENDED
    word = "watched" if current else "live" if live else "recorded"
    role = "accent bold" if chosen else "fg"
    name = f"{clipped(listed.name, _NAME):<{_NAME}} "
    run = f"{clipped(listed.run, _RUN):<{_RUN}} " if width > 100 else ""
    pieces: list[Piece] = [
        (glyphs.SELECTED if chosen else " ", "accent bold"),
        (f"{letter or ' '} ", "accent bold"),
        (f"{sign} {word:<9} ", "ok" if live or current else "muted"),
        (name, role),
        (run, "muted"),
        (f"{ago(listed.age) + ' ago':>{_AGE}}  ", "muted"),
    ]
    if verdict is not None:
        room = max(1, width - sum(len(text) for text, _ in pieces))
        pieces += [(clipped(verdict[0], room), verdict[1]), ("  ", "fg")]
    return fitted([*pieces, (listed.detail, "muted")], width)


class RunsPane(ListPane):
    """Runs found, or what to do where there is none."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._runs: tuple[ListedRun, ...] = ()
        self._chosen = 0
        self._current = ""
        self._note = ""
        self._letters: Mapping[str, str] = {}
        self._verdicts: Mapping[str, Piece] = {}

    def show(
        self,
        runs: Sequence[ListedRun],
        chosen: int,
        current: str,
        note: str,
        letters: Mapping[str, str] | None = None,
        verdicts: Mapping[str, Piece] | None = None,
    ) -> None:
        """Draw a list; ``current`` is the id of the run being watched, ``note`` stands for it,
        ``letters`` are those of the runs compared, by id, ``verdicts`` those of the runs that are
        read now."""
        self._letters, self._verdicts = letters or {}, verdicts or {}
        self._runs, self._chosen = tuple(runs), chosen
        self._current, self._note = current, note
        live = sum(run.kind == "live" for run in self._runs)
        set_title(self, f"Runs · {live} live, {len(self._runs) - live} recorded")
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        self._owners = ()
        if self._note:
            return (((self._note, "muted"),),)
        keys = self.monitor.keys
        if not self._runs:
            again = keys.of("refresh_runs").shown
            return tuple(((clipped(text, width), "fg"),) for text in hint(again))
        count = len(self._runs)
        # The heading stands before the first entry.
        self._owners = range(-1, count)
        room = max(1, height - 1)
        self._first = first_shown(self._chosen, count, room, self._first)
        shown = range(self._first, min(count, self._first + room))
        lines: list[Line] = [heading(width)]
        lines += [
            run_line(
                self._runs[index],
                width,
                index == self._chosen,
                self._runs[index].run == self._current,
                self._letters.get(self._runs[index].run, ""),
                self._verdict(self._runs[index]),
            )
            for index in shown
        ]
        if height - len(lines) >= _SPARE and self._chosen < count:
            listed = self._runs[self._chosen]
            verdict = self._verdict(listed, dated=True)
            lines += details(listed, keys.of("open_address").shown, width, verdict)
        return tuple(lines)

    def _verdict(self, listed: ListedRun, dated: bool = False) -> Piece | None:
        """Of a run that is read now, else what it was told to be when it was last watched;
        ``dated``: and at which step that was."""
        now = self._verdicts.get(listed.run)
        if now is not None or listed.verdict is None:
            return now
        words, role = in_words(listed.verdict)
        return (f"{words}, at step {listed.verdict.step}" if dated else words), role
