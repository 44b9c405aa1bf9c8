"""``python -m diagnoser.faults.readme [--write]``: the catalogue of faults, told from the code.

Prints the tables, or puts them between the markers of this folder's README.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from diagnoser.faults.catalogue import OPERATORS, ways_of
from diagnoser.faults.fault import Operator
from diagnoser.taxonomy import categories, causes_of

README = Path(__file__).parent / "README.md"
BEGIN = "<!-- catalogue begin: written by `python -m diagnoser.faults.readme --write` -->"
END = "<!-- catalogue end -->"


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


def placed(text: str) -> str:
    """A README's text with the catalogue between its markers.

    Raises ValueError where it has none.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"The README needs the two lines {BEGIN} and {END} around the catalogue.")
    before, after = text.split(BEGIN, 1)[0], text.split(END, 1)[1]
    return f"{before}{BEGIN}\n\n{catalogue()}\n\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the catalogue, or write it."""
    parser = argparse.ArgumentParser(prog="python -m diagnoser.faults.readme")
    parser.add_argument("--write", action="store_true", help=f"put it into {README.name}")
    if parser.parse_args(arguments).write:
        README.write_text(placed(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(catalogue())


if __name__ == "__main__":
    main()
