"""The key table in use: the product's, with the keys that the person put in their place."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace
from textual.keys import KEY_NAME_REPLACEMENTS, Keys

from monitor.keys import KEYS, Key
from monitor.view_names import NAMES, ViewName, title_of

_MODIFIERS = ("ctrl", "shift", "alt", "super", "meta")
_NAMED = {key.value for key in Keys} | {f"f{number}" for number in range(1, 25)}
_SHOWN = {
    "right": "→", "left": "←", "up": "↑", "down": "↓", "escape": "Esc", "enter": "Enter",
    "pagedown": "PgDn", "pageup": "PgUp", "home": "Home", "end": "End", "minus": "−",
}  # fmt: skip


def _name_of(character: str) -> str:
    """What Textual calls the key that types a character; empty for one without a name."""
    if character.isalnum():
        return character
    name = unicodedata.name(character, "").lower().replace("-", "_").replace(" ", "_")
    return KEY_NAME_REPLACEMENTS.get(name, name)


_CHARACTERS = {
    name: character for character in map(chr, range(0x20, 0x250)) if (name := _name_of(character))
}
"""Characters by the names of their keys."""


class KeyTable(Struct, frozen=True):
    """Commands with their keys; everything that speaks of keys asks this."""

    keys: tuple[Key, ...] = KEYS

    def here(self, replay: bool, view: ViewName | None = None) -> tuple[Key, ...]:
        """The keys that work on a replay, or on a live run; None: in any view."""
        return tuple(
            key
            for key in self.keys
            if key.in_mode(replay) and (view is None or not key.views or view in key.views)
        )

    def works(
        self, action: str, parameters: tuple[object, ...], replay: bool, view: ViewName
    ) -> bool:
        """The command belongs to this kind of source and this view; others always work."""
        found = [key for key in self.keys if key.method == action]
        if parameters:
            # Arguments tell commands apart: the same method may serve two keys in two views.
            found = [key for key in found if key.action == call(action, parameters)] or found
        return not found or any(
            key.in_mode(replay) and (not key.views or view in key.views) for key in found
        )

    def elsewhere(self, pressed: str, replay: bool, view: ViewName) -> str:
        """Where a key works that does nothing here; empty where it does, or works nowhere."""
        found = [key for key in self.keys if pressed in key.keys.split(",")]
        there = [key for key in found if key.in_mode(replay)]
        if not found or any(not key.views or view in key.views for key in there):
            return ""
        if not there:
            of = "a live run, not on a replay" if replay else "a replay, not on a live run"
            return f"{found[0].shown} works on {of}"
        titles = [title_of(name) for name in NAMES if any(name in key.views for key in there)]
        return f"{there[0].shown} works in {', '.join(titles)}"

    def in_ascii(self) -> KeyTable:
        """The same with arrows by name: as ``<`` and ``>`` they would be read as those keys."""
        names = {sign: name for name, sign in _SHOWN.items() if not sign.isascii()}
        names[_SHOWN["minus"]] = "-"
        return KeyTable(tuple(replace(k, shown=names.get(k.shown, k.shown)) for k in self.keys))

    def of(self, action: str) -> Key:
        """The first command with this action."""
        return next(key for key in self.keys if key.action == action)

    def named(self, name: str) -> Key | None:
        """The command with this id."""
        return next((key for key in self.keys if key.id == name), None)


def call(action: str, parameters: tuple[object, ...]) -> str:
    """An action and its arguments as the table writes them."""
    return f"{action}({', '.join(map(repr, parameters))})" if parameters else action


def remapped(wanted: Mapping[str, str]) -> tuple[KeyTable, tuple[str, ...]]:
    """The table with other keys (command id -> comma-separated keys), and what could not be done.

    A key that another command has in the same view stays with the other command.
    """
    table, complaints = KeyTable(), []
    for name, given in wanted.items():
        command = table.named(name)
        if command is None:
            complaints.append(f'keys: "{name}" is no command: docs/keys.md has their names')
            continue
        names = [textual_name(word.strip()) for word in given.split(",")]
        if not all(names):
            complaints.append(f'keys: "{name}" = "{given}": no such key; try a letter, f3, ctrl+n')
            continue
        known = [key for key in names if key]
        changed = replace(command, keys=",".join(known), shown=shown_name(known[0]))
        others = KeyTable(tuple(changed if key is command else key for key in table.keys))
        clash = _clash(others, changed)
        if clash is not None:
            complaints.append(
                f'keys: "{name}" = "{given}": "{clash.id}" has that key; give it another one first'
            )
            continue
        table = others
    return table, tuple(complaints)


def _clash(table: KeyTable, changed: Key) -> Key | None:
    mine = set(changed.keys.split(","))
    for replay in (False, True):
        for view in NAMES:
            keys = table.here(replay, view)
            if changed not in keys:
                continue
            for other in keys:
                if other is not changed and mine & set(other.keys.split(",")):
                    return other
    return None


def textual_name(word: str) -> str | None:
    """The name that Textual has for a key as a person writes it; None where there is none."""
    *modifiers, last = word.split("+") if len(word) > 1 else [word]
    if any(modifier not in _MODIFIERS for modifier in modifiers):
        return None
    if len(last) == 1:
        last = _name_of(last)
        return "+".join([*modifiers, last]) if last else None
    known = last in _NAMED or last in _CHARACTERS
    return "+".join([*modifiers, last]) if known else None


def shown_name(key: str) -> str:
    """A key of Textual's as a person reads it."""
    *modifiers, last = key.split("+")
    last = _SHOWN.get(last) or _CHARACTERS.get(last, last)
    return "+".join([*modifiers, last])
