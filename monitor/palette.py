"""Colours: three themes of our own, and the palette that any Textual theme gives the charts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from msgspec import Struct
from rich.style import Style
from textual.color import Color, ColorParseError
from textual.theme import Theme

DARK = Theme(
    name="monitor-dark",
    primary="#7cb7ff",
    secondary="#9aa7ff",
    accent="#7cb7ff",
    foreground="#d6dbe5",
    background="#10141b",
    surface="#161c26",
    panel="#1c2430",
    success="#7fc99a",
    warning="#e8b45e",
    error="#f4737c",
    dark=True,
)
LIGHT = Theme(
    name="monitor-light",
    primary="#0b5cad",
    secondary="#4a4fb5",
    accent="#0b5cad",
    foreground="#22272e",
    background="#fbfbf9",
    surface="#f2f2ee",
    panel="#e8e8e2",
    success="#1b7a48",
    warning="#946200",
    error="#c3242f",
    dark=False,
)
COLOUR_BLIND = Theme(
    name="monitor-colour-blind",
    # Told apart with any kind of colour vision: blue, yellow and vermilion, by lightness too.
    primary="#b9cdf5",
    secondary="#b9cdf5",
    accent="#b9cdf5",
    foreground="#dcdfe4",
    background="#101218",
    surface="#171a22",
    panel="#1e222c",
    success="#3f9be0",
    warning="#f2e26b",
    error="#e86428",
    dark=True,
)
THEMES = (DARK, LIGHT, COLOUR_BLIND)

_SERIES_DARK = (
    "#6ca8ff",
    "#57c7e3",
    "#5fd3a6",
    "#a5d66f",
    "#e3cf63",
    "#f0a95f",
    "#f0838c",
    "#dd8fd8",
)
_SERIES_LIGHT = (
    "#1f5fd0", "#0b7f9c", "#0d8560", "#4d7d0a", "#8c7400", "#b85c00", "#c22f4a", "#96309a",
)  # fmt: skip
_HEAT_DARK = (
    "#1b2433",
    "#1f3a5f",
    "#22587f",
    "#217d8f",
    "#2fa386",
    "#7cc45c",
    "#d9d24a",
    "#fff3a8",
)
_HEAT_LIGHT = (
    "#eceff1",
    "#d3e4ee",
    "#a9cfe0",
    "#74b4c9",
    "#44919f",
    "#2c6d86",
    "#254a70",
    "#1b1f4d",
)
_TWO_DARK = ("#8ec5ff", "#3f7fc4", "#24405f", "#1b2433", "#5f3a2a", "#c4753f", "#ffc98e")
_TWO_LIGHT = ("#1d4f91", "#6a9fd0", "#c9dcec", "#eceff1", "#f0d9c4", "#d68a4c", "#8f3f0a")
# Ordered like the layers they stand for, by lightness first (after cividis).
_SERIES_SAFE = ("#3d7fd0", "#6591c2", "#8aa3b0", "#aab394", "#c9c377", "#e6d557", "#fff0a0")
_HEAT_SAFE = (
    "#1a2233", "#12386f", "#4a5a73", "#717378", "#97907a", "#bfad6e", "#e6cb57", "#fff08a",
)  # fmt: skip
_LEVELS = 12
_SERIES = 8


class _Ramps(Struct, frozen=True):
    """Colours of series, of heat, and of heat with a middle."""

    series: tuple[str, ...]
    heat: tuple[str, ...]
    two_sided: tuple[str, ...]


_DARK_RAMPS = _Ramps(_SERIES_DARK, _HEAT_DARK, _TWO_DARK)
_LIGHT_RAMPS = _Ramps(_SERIES_LIGHT, _HEAT_LIGHT, _TWO_LIGHT)
_SAFE_RAMPS = _Ramps(_SERIES_SAFE, _HEAT_SAFE, _TWO_DARK)


def _ramps_for(theme: Theme) -> _Ramps:
    if theme.name == COLOUR_BLIND.name:
        return _SAFE_RAMPS
    return _DARK_RAMPS if theme.dark else _LIGHT_RAMPS


class Palette:
    """Colour names of the charts' roles, and the styles made of them."""

    def __init__(self, colours: dict[str, str]) -> None:
        self.colours = colours
        self._styles: dict[str, Style] = {}
        self._plain: dict[str, Style] = {}
        self._grounded: dict[tuple[Style, bool], _Grounded] = {}

    def on(self, ground: Style, plain: bool = False) -> Mapping[str, Style]:
        """The styles of all roles before a background, by role; ``plain``: without colours."""
        found = self._grounded.get((ground, plain))
        if found is None:
            found = _Grounded(ground, self.plain if plain else self.style)
            self._grounded[ground, plain] = found
        return found

    def style(self, role: str) -> Style:
        """The style of a role such as ``bad bold`` or ``h3 on h7``."""
        style = self._styles.get(role)
        if style is None:
            words = [self.colours.get(word, word) for word in role.split()]
            style = self._styles[role] = Style.parse(" ".join(words))
        return style

    def plain(self, role: str) -> Style:
        """The style of a role without colours: bold and reverse remain."""
        style = self._plain.get(role)
        if style is None:
            words = role.split()
            style = self._plain[role] = Style(
                bold="bold" in words or None, reverse="reverse" in words or None
            )
        return style


class _Grounded(dict[str, Style]):
    """Styles by role, each made when first asked for."""

    def __init__(self, ground: Style, style: Callable[[str], Style]) -> None:
        super().__init__()
        self._ground, self._style = ground, style

    def __missing__(self, role: str) -> Style:
        style = self[role] = self._ground + self._style(role)
        return style


@lru_cache(maxsize=32)
def _palette(
    foreground: str, background: str, accents: tuple[str, ...], ramps_used: _Ramps
) -> Palette:
    front, back = Color.parse(foreground), Color.parse(background)
    colours = {
        "fg": front.hex,
        "muted": front.blend(back, 0.42).hex,
        "faint": front.blend(back, 0.74).hex,
        "hollow": front.blend(back, 0.9).hex,
        "ground": back.hex,
        "band": Color.parse(accents[1]).blend(back, 0.86).hex,
    }
    colours |= dict(zip(("accent", "ok", "warn", "bad"), accents, strict=True))
    ramps = (
        ("s", ramps_used.series, _SERIES),
        ("h", ramps_used.heat, _LEVELS),
        ("d", ramps_used.two_sided, _LEVELS),
    )
    for letter, stops, count in ramps:
        for level in range(count):
            colours[f"{letter}{level}"] = _between(stops, level / (count - 1))
    return Palette(colours)


def _between(stops: tuple[str, ...], share: float) -> str:
    at = share * (len(stops) - 1)
    index = min(int(at), len(stops) - 2)
    return Color.parse(stops[index]).blend(Color.parse(stops[index + 1]), at - index).hex


_FOUND: dict[int, tuple[Theme, Palette]] = {}
"""By the theme's identity: asked for with every picture, and a theme is never changed."""


def palette_for(theme: Theme) -> Palette:
    """The palette of a theme. Themes of terminal colours, which cannot be mixed, give ours."""
    known = _FOUND.get(id(theme))
    if known is None or known[0] is not theme:
        known = _FOUND[id(theme)] = (theme, _palette_for(theme))
    return known[1]


def _palette_for(theme: Theme) -> Palette:
    own = DARK if theme.dark else LIGHT
    names = ("accent", "success", "warning", "error")
    values = [getattr(theme, name) or getattr(own, name) for name in names]
    front, back = theme.foreground or own.foreground, theme.background or own.background
    try:
        mixed = [Color.parse(value) for value in (front, back, *values)]
    except ColorParseError:
        mixed = []
    if not mixed or any(colour.ansi is not None for colour in mixed):
        return palette_for(own)
    return _palette(mixed[0].hex, mixed[1].hex, tuple(c.hex for c in mixed[2:]), _ramps_for(theme))
