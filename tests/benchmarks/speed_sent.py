"""What an app without a terminal would have sent to one."""

from __future__ import annotations

import asyncio
from typing import Any

from textual.app import App


class Sent:
    """Makes a headless app encode each picture as it would for a terminal, and counts its bytes."""

    def __init__(self, app: App[Any]) -> None:
        self.bytes = 0
        self.pictures = 0
        self.drawn = asyncio.Event()
        display = app._display

        def counted(screen: Any, renderable: Any) -> None:
            if renderable is not None:
                self.bytes += len(renderable.render_segments(app.console).encode())
                self.pictures += 1
            display(screen, renderable)
            self.drawn.set()

        app._display = counted  # type: ignore[method-assign]
