"""How fast the monitor is: measures, prints, and writes the table of docs/monitor-speed.md.

    python tests/benchmarks/monitor_speed.py [--only NAME ...] [--trace BIG] [--no-docs]

Without ``--only`` everything in turn, some four minutes; with it the rows of the other items stay
as they are in the table. The long trace is made first (515 MB, in a temporary directory) unless one
of tests/benchmarks/big_trace.py is named. textual-plot and textual-plotext are measured beside our
charts where they are installed. Close other programs first: most figures are clock times.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "monitor"), str(Path(__file__).parent)]

import speed_charts  # noqa: E402 (the path is set first)
import speed_first_screen  # noqa: E402
import speed_idle  # noqa: E402
import speed_intake  # noqa: E402
import speed_long_trace  # noqa: E402
import speed_slow_link  # noqa: E402
from speed_figure import Figure  # noqa: E402

DOCS = ROOT / "docs" / "monitor-speed.md"
HEAD = "| item | what | measured | lowest – highest | asked for | | load | stolen |"
MEASURES: dict[str, Callable[[Path], Iterator[Figure]]] = {
    "first_screen": speed_first_screen.measure,
    "intake": speed_intake.measure,
    "long_trace": speed_long_trace.measure,
    "charts": speed_charts.measure,
    "idle": speed_idle.measure,
    "slow_link": speed_slow_link.measure,
}


def short_trace(directory: Path) -> Path:
    """A recorded run of usual length."""
    from streams import store

    from monitor.sources.fake import Script, records

    return store(directory / "short.trace", list(records(Script(steps=4000, fault_step=2000))))


def long_trace(directory: Path, frames: int) -> Path:
    """A recorded run of unusual length."""
    from big_trace import write

    write(directory / "big.trace", frames)
    return directory / "big.trace"


def measured(name: str, directory: Path, big: Path | None, frames: int) -> list[str]:
    """The rows of one item, printed as they come."""
    load, before = os.getloadavg()[0], processor_time()
    long = name == "long_trace"
    trace = (big or long_trace(directory, frames)) if long else short_trace(directory)
    figures = list(MEASURES[name](trace))
    stolen, whole = (now - then for now, then in zip(processor_time(), before, strict=True))
    state = (f"{load:.1f}", f"{stolen / whole:.0%}" if whole else "")
    rows = ["| " + " | ".join((name, *figure.cells, *state)) + " |" for figure in figures]
    print(*rows, sep="\n", flush=True)
    return rows


def processor_time() -> tuple[int, int]:
    """What other guests of the same machine took of our processors so far, and all there was, in
    ticks; zeros where the system does not tell."""
    path = Path("/proc/stat")
    if not path.exists():
        return 0, 0
    fields = [int(field) for field in path.read_text().splitlines()[0].split()[1:9]]
    return fields[7], sum(fields)


def machine() -> str:
    """What it was measured on."""
    cores = os.cpu_count()
    return (
        f"Measured on {cores} processor cores ({platform.machine()}) with Python "
        f"{platform.python_version()}, textual {version('textual')}, numpy {version('numpy')}."
    )


def written(text: str, rows: dict[str, list[str]]) -> str:
    """The document with the rows of the items that were measured in place of the old ones."""
    before, _, rest = text.partition(HEAD)
    table, _, after = rest.partition("\n\n")
    old = [line for line in table.splitlines() if line.startswith("| ")]
    lines = []
    for name in MEASURES:
        lines += rows.get(name) or [row for row in old if row.startswith(f"| {name} |")]
    head = before.rstrip().rpartition("\n\n")[0]
    return "\n".join((f"{head}\n\n{machine()}\n", HEAD, "|---" * 8 + "|", *lines, "", after))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--trace", type=Path, help="a long trace of big_trace.py")
    parser.add_argument("--frames", type=int, default=100_000, help="of the long trace")
    parser.add_argument("--no-docs", action="store_true", help="only print")
    options = parser.parse_args()
    print(f"{machine()}\n\n{HEAD}\n{'|---' * 8}|")
    rows = {}
    with tempfile.TemporaryDirectory() as directory:
        # A cache of our own: nothing is known of a trace, and the person's is left alone.
        os.environ["XDG_CACHE_HOME"] = f"{directory}/cache"
        os.environ["PYTHONPYCACHEPREFIX"] = f"{directory}/bytecode"
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        # What an installer compiles; torch alone takes half a minute.
        code = "import monitor.app, diagnoser.engine"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
        for name in options.only:
            rows[name] = measured(name, Path(directory), options.trace, options.frames)
    if not options.no_docs:
        DOCS.write_text(written(DOCS.read_text(), rows))


if __name__ == "__main__":
    main()
