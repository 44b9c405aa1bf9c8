"""Write a saved run as one HTML file: verdict, its history, evidence, what to try, charts, facts.

The file needs nothing beside it and opens without a network; light or dark as the reader's browser
prefers. The exit status is 0 whatever the verdict: diagnose tells that by its status."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a saved run as one HTML file"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of ``report``."""
    parser.add_argument("trace", type=Path, metavar="TRACE", help="file written by the probe")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="X.html", help="file to write"
    )
    parser.add_argument(
        "--charts",
        default="",
        metavar="REGEX",
        help="besides the twelve that matter most, charts whose name matches (all: .)",
    )
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")


def run(options: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    from monitor.report.gathering import gather
    from monitor.report.page import page
    from monitor.sources.source import SourceError
    from monitor.usage import UsageError

    output: Path = options.output
    if output.exists() and not options.force:
        raise UsageError(f"{output} exists: name another file or add --force")
    text = page(gather(options.trace, options.charts))
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SourceError(f"{output} cannot be written: {error.strerror}") from None
    print(f"{output}: {len(text.encode()) / 1e6:.1f} MB")
    return 0
