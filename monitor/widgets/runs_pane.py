"""The list of runs to choose from."""

from __future__ import annotations

from collections.abc import Sequence

from monitor import glyphs
from monitor.charts.line import Line, fitted
from monitor.formatting import ago, clipped
from monitor.run_catalogue import ListedRun
from monitor.widgets.list_pane import ListPane
from monitor.widgets.list_window import first_shown

_NAME, _RUN, _AGE = 22, 30, 10
HINT = (
    "No live run and no recorded one. Put one line into the training script:",
    "",
    "    import probe; probe.attach(model, optimizer)",
    "",
    "start it, and press r. To see how it looks first: defaultpp-monitor demo",
)


def run_line(listed: ListedRun, width: int, chosen: bool, current: bool, letter: str = "") -> Line:
    """Sign and word of its kind, name, id, age, detail; ``letter`` where it is compared."""
    live = listed.kind == "live"
    sign = glyphs.LIVE if live else glyphs.ENDED
    word = "watched" if current else "live" if live else "recorded"
    role = "accent bold" if chosen else "fg"
    name = f"{clipped(listed.name, _NAME):<{_NAME}} "
    run = f"{clipped(listed.run, _RUN):<{_RUN}} " if width > 100 else ""
    return fitted(
        (
            (glyphs.SELECTED if chosen else " ", "accent bold"),
            (f"{letter or ' '} ", "accent bold"),
            (f"{sign} {word:<9} ", "ok" if live or current else "muted"),
            (name, role),
            (run, "muted"),
            (f"{ago(listed.age) + ' ago':>{_AGE}}  ", "muted"),
            (listed.detail, "muted"),
        ),
        width,
    )


class RunsPane(ListPane):
    """Runs found, or what to do where there is none."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._runs: tuple[ListedRun, ...] = ()
        self._chosen = 0
        self._current = ""
        self._note = ""
        self._letters: dict[str, str] = {}

    def show(
        self,
        runs: Sequence[ListedRun],
        chosen: int,
        current: str,
        note: str,
        letters: dict[str, str] | None = None,
    ) -> None:
        """Draw a list; ``current`` is the id of the run being watched, ``note`` stands for it,
        ``letters`` are those of the runs compared, by id."""
        self._letters = letters or {}
        self._runs, self._chosen = tuple(runs), chosen
        self._current, self._note = current, note
        live = sum(run.kind == "live" for run in self._runs)
        self.border_title = f"Runs · {live} live, {len(self._runs) - live} recorded"
        self.redraw()

    def compose_lines(self, width: int, height: int) -> Sequence[Line]:
        self._owners = () if self._note else range(len(self._runs))
        if self._note:
            return (((self._note, "muted"),),)
        if not self._runs:
            return tuple(((clipped(text, width), "fg"),) for text in HINT)
        count = len(self._runs)
        self._first = first_shown(self._chosen, count, height, self._first)
        shown = range(self._first, min(count, self._first + height))
        return tuple(
            run_line(
                self._runs[index],
                width,
                index == self._chosen,
                self._runs[index].run == self._current,
                self._letters.get(self._runs[index].run, ""),
            )
            for index in shown
        )
