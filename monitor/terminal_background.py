"""Whether the terminal is dark or light, as it says itself.

Textual does not ask. The question is an escape sequence (OSC 11), followed by one that every
terminal answers (device attributes): the second answer says that no first one will come.
"""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import time
import tty

TIMEOUT = 0.5
_QUESTION = b"\x1b]11;?\x1b\\\x1b[c"
_COLOUR = re.compile(rb"\x1b\]11;rgba?:([0-9a-fA-F]+)/([0-9a-fA-F]+)/([0-9a-fA-F]+)")
_ATTRIBUTES = re.compile(rb"\x1b\[\?[0-9;]*c")
_SILENT = ("dumb", "linux", "")


def theme_of_terminal() -> str | None:
    """The name of our theme that suits the terminal; None where it does not tell."""
    light = None
    if os.environ.get("TERM", "") not in _SILENT and sys.stdin.isatty() and sys.stdout.isatty():
        light = asked(sys.stdin.fileno(), sys.stdout.fileno())
    if light is None:
        light = from_variable(os.environ.get("COLORFGBG", ""))
    return None if light is None else "monitor-light" if light else "monitor-dark"


def from_variable(value: str) -> bool | None:
    """Light or not by ``COLORFGBG`` (``15;0``), the variable some terminals set."""
    last = value.rpartition(";")[2]
    if not last.isdecimal():
        return None
    return int(last) in (7, *range(9, 16))


def asked(reading: int, writing: int, timeout: float = TIMEOUT) -> bool | None:
    """Light or not by the terminal's own answer on two file descriptors."""
    try:
        before = termios.tcgetattr(reading)
    except termios.error:
        return None
    try:
        tty.setraw(reading, termios.TCSANOW)
        os.write(writing, _QUESTION)
        return is_light(_answer(reading, timeout))
    except OSError:
        return None
    finally:
        # What comes late must not be taken for keys.
        termios.tcsetattr(reading, termios.TCSAFLUSH, before)


def _answer(reading: int, timeout: float) -> bytes:
    found = b""
    end = time.monotonic() + timeout
    while not _ATTRIBUTES.search(found) and len(found) < 1000:
        left = end - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            break
        found += os.read(reading, 1000)
    return found


def is_light(answer: bytes) -> bool | None:
    """The background in an answer is nearer to white; None where no colour was answered."""
    match = _COLOUR.search(answer)
    if match is None:
        return None
    red, green, blue = (int(part, 16) / (16 ** len(part) - 1) for part in match.groups())
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5
