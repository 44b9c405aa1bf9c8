"""The person's settings, from one file. A bad line is told and left out; nothing here fails.

TOML, because a person writes it by hand and comments in it; Python reads it itself from 3.11 on.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from monitor.charts.smoothing import WEIGHTS
from monitor.viewing import GRIDS

PATH_VARIABLE = "DEFAULTPP_SETTINGS"
"""Names another file; empty: none is read."""
MIN_FPS, MAX_FPS = 0.5, 30.0
_LARGEST = 256 * 1024

EXAMPLE = """\
theme = "monitor-light"      # or monitor-dark, monitor-colour-blind, or another of the palette
fps = 4                      # redraws per second, 0.5 to 30
smoothing = 0.9              # EMA of the charts: 0, 0.6, 0.9 or 0.97
charts = 6                   # charts at once: 0 (as many as fit), 1, 2, 4, 6, 9 or 12
axis = "step"                # or "time"
ascii = false                # draw with ASCII characters only

[keys]                       # name of a command (docs/keys.md) = its key or keys
"charts.filter" = "f3"
"views.next-view-1" = ["n", "ctrl+n"]
"""


class Settings(Struct, frozen=True):
    """What the person wants. ``theme`` None: as the terminal is."""

    theme: str | None = None
    fps: float = 4.0
    smoothing: float = 0.0
    charts: int = 0
    axis: str = "step"
    ascii: bool = False
    keys: dict[str, str] = field(default_factory=dict)
    """Name of a command -> its keys, comma-separated, still to be checked."""
    complaints: tuple[str, ...] = ()
    """One sentence for each line that could not be used as it is."""


def settings_path() -> Path | None:
    """``$XDG_CONFIG_HOME/defaultpp-monitor/settings.toml``, usually below ``~/.config``.

    ``DEFAULTPP_SETTINGS`` names another file. None where there is no home to look in.
    """
    chosen = os.environ.get(PATH_VARIABLE)
    if chosen is not None:
        return Path(chosen).expanduser() if chosen else None
    base = os.environ.get("XDG_CONFIG_HOME")
    try:
        home = Path(base) if base and os.path.isabs(base) else Path.home() / ".config"
    except RuntimeError:
        return None
    return home / "defaultpp-monitor" / "settings.toml"


def load(path: Path | None = None) -> Settings:
    """The settings of a file, by default the person's; a file that is not there sets nothing."""
    path = path or settings_path()
    if path is None:
        return Settings()
    try:
        text = _text(path)
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError) as error:
        return Settings(complaints=(f"{path} cannot be read: {_reason(error)}",))
    # Loaded only for a file that is there.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Settings(complaints=(f"{path} is not TOML, nothing of it is used: {error}",))
    return _Checked(path.name).settings(found)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise ValueError(f"over {_LARGEST // 1024} kB")
    return data.decode("utf-8")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class _Checked:
    """Takes values one by one and keeps what is to be said about them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._complaints: list[str] = []

    def settings(self, found: dict[str, Any]) -> Settings:
        default = Settings()
        take: dict[str, tuple[Any, Callable[[str, Any, Any], Any]]] = {
            "theme": (default.theme, self._word),
            "fps": (default.fps, self._fps),
            "smoothing": (default.smoothing, self._nearest(WEIGHTS)),
            "charts": (default.charts, self._nearest(GRIDS)),
            "axis": (default.axis, self._axis),
            "ascii": (default.ascii, self._flag),
            "keys": ({}, self._keys),
        }
        values = {
            name: check(name, found[name], unset) if name in found else unset
            for name, (unset, check) in take.items()
        }
        for name in found.keys() - take.keys():
            self._say(f"{name} is no setting: there are {', '.join(take)}")
        return Settings(**values, complaints=tuple(self._complaints))

    def _say(self, text: str) -> None:
        self._complaints.append(f"{self._name}: {text}")

    def _word(self, name: str, value: Any, unset: Any) -> Any:
        if isinstance(value, str) and value:
            return value
        self._say(f'{name} = {value!r} is not a name in quotes, such as "monitor-light"')
        return unset

    def _axis(self, name: str, value: Any, unset: Any) -> Any:
        if value in ("step", "time"):
            return value
        self._say(f'{name} = {value!r} is neither "step" nor "time"')
        return unset

    def _flag(self, name: str, value: Any, unset: Any) -> Any:
        if isinstance(value, bool):
            return value
        self._say(f"{name} = {value!r} is neither true nor false")
        return unset

    def _fps(self, name: str, value: Any, unset: Any) -> Any:
        if not _is_number(value):
            self._say(f"{name} = {value!r} is not a number")
            return unset
        kept = min(max(float(value), MIN_FPS), MAX_FPS)
        if kept != value:
            self._say(f"{name} = {value} is not within {MIN_FPS:g} and {MAX_FPS:g}: {kept:g}")
        return kept

    def _nearest(self, choices: Sequence[float]) -> Callable[[str, Any, Any], Any]:
        def check(name: str, value: Any, unset: Any) -> Any:
            told = ", ".join(f"{choice:g}" for choice in choices)
            if not _is_number(value):
                self._say(f"{name} = {value!r} is not one of {told}")
                return unset
            kept = min(choices, key=lambda choice: abs(choice - value))
            if kept != value:
                self._say(f"{name} = {value} is not one of {told}: {kept:g}, the nearest")
            return kept

        return check

    def _keys(self, name: str, value: Any, unset: Any) -> Any:
        if not isinstance(value, dict):
            self._say('keys is not a table: write [keys], and lines like "charts.filter" = "f3"')
            return unset
        found = {}
        for command, keys in value.items():
            words = [keys] if isinstance(keys, str) else keys
            if isinstance(words, list) and words and all(isinstance(w, str) for w in words):
                found[command] = ",".join("comma" if word == "," else word for word in words)
            elif isinstance(keys, dict):
                self._say(f'keys: put the name in quotes: "{command}.…" = "f3"')
            else:
                self._say(f'keys: "{command}" = {keys!r} is not a key such as "f3"')
        return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
