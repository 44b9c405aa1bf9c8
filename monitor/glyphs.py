"""Every special character the screen uses, and plain ASCII stand-ins for each.

All are one cell wide in every terminal; characters that some terminals draw as emoji are avoided.
Text is always composed with these; in ASCII mode :func:`to_ascii` replaces them cell for cell.
"""

from __future__ import annotations

LIVE = "●"
SILENT = "○"
PAUSED = "‖"
LOST = "✗"
ENDED = "■"
WAITING = "◌"
PLAYING = "▶"
FAULTY = "✗"
HEALTHY = "✓"

BAR_FULL = "█"
BAR_EMPTY = "░"
BEAD = "·"
ORIGIN = "▶"
BULLET = "•"
SELECTED = "▸"
RIGHT = "›"
ELLIPSIS = "…"

VERTICAL, HORIZONTAL = "│", "─"
STRONG_VERTICAL, STRONG_HORIZONTAL = "┃", "━"
CORNERS = "╭╮╰╯"
"""Down-right, down-left, up-right, up-left: the four turns of a wire."""
STRONG_CORNERS = "┏┓┗┛"

STEP_MARK = "┊"
CURSOR_LINE, CURSOR_FOOT = "╎", "┻"
FAULT_MARK = "▲"
FLAG_MARK = "◆"
EVENT_MARK = "▵"
NAN_MARK = "×"
PLUS_INFINITY_MARK = "↑"
MINUS_INFINITY_MARK = "↓"

_ASCII = str.maketrans(
    {
        "●": "*",
        "○": "o",
        "‖": "=",
        "✗": "x",
        "■": "#",
        "◌": "~",
        "▶": ">",
        "✓": "v",
        "█": "#",
        "░": ".",
        "·": ".",
        "•": "-",
        "▸": ">",
        "›": ">",
        "…": "~",
        "│": "|",
        "─": "-",
        "┃": "!",
        "━": "=",
        "╭": "+",
        "╮": "+",
        "╰": "+",
        "╯": "+",
        "┏": "#",
        "┓": "#",
        "┗": "#",
        "┛": "#",
        "└": "+",
        "┤": "+",
        "┊": ":",
        "╎": "|",
        "┻": "^",
        "←": "<",
        "▌": "|",
        "▀": "^",
        "▂": "_",
        "▒": ":",
        "×": "x",
        "▲": "A",
        "◆": "F",
        "▵": "'",
        "↑": "^",
        "↓": "v",
        "→": ">",
        "–": "-",
        "—": "-",
        "−": "-",
        "“": '"',
        "”": '"',
        "’": "'",
        "≤": "<",
        "≥": ">",
        "√": "v",
        "ᵀ": "T",
        "±": "+",
    }
)


def to_ascii(text: str) -> str:
    """``text`` with every character in ASCII, as many as before."""
    if text.isascii():
        return text
    return text.translate(_ASCII).encode("ascii", "replace").decode()
