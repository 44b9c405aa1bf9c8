"""The 12 fault categories, 45 root causes and 52 operators, read from ``diagnoser/data``.

A root cause is always keyed ``category/root_cause``, because two categories own a
``regularization``. Names are those of the DEFault++ taxonomy; the texts are for the person who
has to repair the run.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping


class Operator(Struct, frozen=True):
    """A way to inject a root cause. ``scope`` is ``both``, ``encoder`` or ``decoder``."""

    name: str
    category: str
    root_cause: str
    scope: str
    description: str
    parameter: str
    values: tuple[str, ...]


class RootCause(Struct, frozen=True):
    """What is wrong, how it shows, where to look and what to do about it."""

    category: str
    name: str
    title: str
    meaning: str
    symptoms: str
    check: str
    repair: str

    @property
    def key(self) -> str:
        return f"{self.category}/{self.name}"


class Category(Struct, frozen=True):
    """A group of root causes and the node kinds of the FPG in which they sit."""

    name: str
    title: str
    nodes: tuple[str, ...]


def read_table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of ``diagnoser/data/NAME`` as dictionaries keyed by the first line."""
    text = files("diagnoser").joinpath("data", name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


@lru_cache(maxsize=1)
def categories() -> Mapping[str, Category]:
    """All categories by name, in the taxonomy's order."""
    return MappingProxyType(
        {
            row["category"]: Category(row["category"], row["title"], tuple(row["nodes"].split()))
            for row in read_table("categories.csv")
        }
    )


@lru_cache(maxsize=1)
def root_causes() -> Mapping[str, RootCause]:
    """All root causes by ``category/root_cause``, in the taxonomy's order."""
    rows = read_table("root_causes.csv")
    causes = (
        RootCause(
            row["category"],
            row["root_cause"],
            row["title"],
            row["meaning"],
            row["symptoms"],
            row["check"],
            row["repair"],
        )
        for row in rows
    )
    return MappingProxyType({cause.key: cause for cause in causes})


@lru_cache(maxsize=1)
def operators() -> Mapping[str, Operator]:
    """All fault operators by name (``MZM``)."""
    return MappingProxyType(
        {
            row["operator"]: Operator(
                row["operator"],
                row["category"],
                row["root_cause"],
                row["scope"],
                row["what_it_does"],
                row["parameter"],
                tuple(row["values"].split()),
            )
            for row in read_table("taxonomy.csv")
        }
    )


def causes_of(category: str) -> tuple[RootCause, ...]:
    """Root causes of a category. Raises :class:`KeyError` for an unknown one."""
    if category not in categories():
        raise KeyError(f"unknown category {category!r}; known are {', '.join(categories())}")
    return tuple(cause for cause in root_causes().values() if cause.category == category)


CATEGORY_NAMES: tuple[str, ...] = tuple(categories())
ROOT_CAUSE_KEYS: tuple[str, ...] = tuple(root_causes())
