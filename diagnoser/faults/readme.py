"""``python -m diagnoser.faults.readme [--write]``: the catalogue of faults, told from the code, and
what shows them, told from the measurements kept with it.

Prints the tables, or puts them between the markers of this folder's README.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from diagnoser.faults import observed
from diagnoser.faults.catalogue import OPERATORS, ways_of
from diagnoser.faults.fault import Operator
from diagnoser.taxonomy import categories, causes_of

README = Path(__file__).parent / "README.md"
COMMAND = "written by `python -m diagnoser.faults.readme --write`"


def _severities(operator: Operator) -> str:
    if operator.parameter is None:
        return ""
    return f"{operator.parameter}: {', '.join(str(value) for value in operator.values)}"


def _row(operator: Operator) -> str:
    cells = (
        operator.root_cause,
        f"**{operator.code}**" if operator.beyond else operator.code,
        operator.what,
        _severities(operator),
        "one, some, all" if operator.layered else "model",
        operator.moment,
        ", ".join(operator.families),
    )
    return "| " + " | ".join(cells) + " |"


def catalogue() -> str:
    """The tables in Markdown: a section per category, then where the further ways happen."""
    beyond = [operator for operator in OPERATORS.values() if operator.beyond]
    lines = [
        f"{len(OPERATORS) - len(beyond)} operators of taxonomy.csv and {len(beyond)} further ways "
        "(**bold**). A severity that equals the clean model's own is never drawn. Moment `start`: "
        "only from the first step on; `any`: at attach or at any later step."
    ]
    for category in categories().values():
        lines += [
            "",
            f"### {category.name}",
            "",
            "| root cause | code | what it does | severities | layers | moment | families |",
            "|---|---|---|---|---|---|---|",
        ]
        for cause in causes_of(category.name):
            lines += [_row(operator) for operator in ways_of(category.name, cause.name)]
    lines += ["", "### Where the further ways happen", ""]
    lines += [
        f"- **{operator.code}** {operator.category}/{operator.root_cause}: {operator.happens}."
        for operator in beyond
    ]
    return "\n".join(lines)


def sections() -> dict[str, str]:
    """Name of a section that is written -> its text."""
    kills = observed.read_kills()
    return {
        "catalogue": catalogue(),
        "observability": observed.observability(observed.read_observability(), kills),
        "kill test": observed.mutation_scores(kills),
    }


def placed(text: str) -> str:
    """A README's text with each section between its markers.

    Raises ValueError where it has none.
    """
    for name, section in sections().items():
        begin, end = f"<!-- {name} begin: {COMMAND} -->", f"<!-- {name} end -->"
        if begin not in text or end not in text:
            raise ValueError(f"The README needs the two lines {begin} and {end} around this.")
        before, after = text.split(begin, 1)[0], text.split(end, 1)[1]
        text = f"{before}{begin}\n\n{section}\n\n{end}{after}"
    return text


def write() -> None:
    """Puts the sections into the README."""
    README.write_text(placed(README.read_text(encoding="utf-8")), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the sections, or write them."""
    parser = argparse.ArgumentParser(prog="python -m diagnoser.faults.readme")
    parser.add_argument("--write", action="store_true", help=f"put them into {README.name}")
    if parser.parse_args(arguments).write:
        write()
    else:
        print("\n\n".join(sections().values()))


if __name__ == "__main__":
    main()
