"""The reference of all keys, from the key table: ``python -m monitor.keys_page > docs/keys.md``."""

from __future__ import annotations

from monitor.keys import KEYS, Key
from monitor.view_names import title_of

_HEAD = """\
# Keys

Generated from `monitor/keys.py`: `python -m monitor.keys_page > docs/keys.md`. The footer shows the
keys of the view on screen, `?` all of them, `ctrl+p` every command by name. What has no view named
works everywhere. The name at the right is what a settings file calls the command, to give it
another key: see [monitor.md](monitor.md#settings).
"""


def as_markdown() -> str:
    """The page as committed in docs/keys.md."""
    parts = [_HEAD]
    for group in dict.fromkeys(key.group for key in KEYS):
        parts.append(f"\n## {group}\n\n| key | what it does | where | name |\n|---|---|---|---|\n")
        parts += [_row(key) for key in KEYS if key.group == group]
    return "".join(parts)


def _row(key: Key) -> str:
    where = ", ".join(title_of(view) for view in key.views)
    if key.when != "always":
        kind = "live run" if key.when == "live" else "replay"
        where = f"{kind}: {where}" if where else kind
    shown = key.shown.replace("|", "\\|")
    return f"| `{shown}` | {key.help} | {where} | `{key.id}` |\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
