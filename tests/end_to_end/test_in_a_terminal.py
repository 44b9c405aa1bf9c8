"""The screen in a real terminal, of tmux, over a run that trains in another process."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest
from training_processes import wait_for

from probe.registry import list_runs

TMUX = shutil.which("tmux")
_SIZE = ("COLUMNS", "LINES")
pytestmark = pytest.mark.skipif(TMUX is None, reason="tmux is not installed")


class Terminal:
    """A tmux server of its own, with one window."""

    def __init__(self, directory, command):
        self._server = [TMUX, "-S", str(directory / "tmux"), "-f", "/dev/null"]
        self.status = directory / "status"
        words = " ".join(map(shlex.quote, command))
        line = f"{words}; echo $? > {shlex.quote(str(self.status))}"
        self._run("new-session", "-d", "-x", "120", "-y", "40", line)

    def _run(self, *words):
        # A size in the environment, as test runners leave it, would stand before the window's.
        env = {name: value for name, value in os.environ.items() if name not in _SIZE}
        done = subprocess.run(
            [*self._server, *words], capture_output=True, text=True, check=False, env=env
        )
        return done.stdout

    def press(self, *keys):
        self._run("send-keys", *keys)

    @property
    def text(self):
        return self._run("capture-pane", "-p")

    def shows(self, *parts):
        """Wait until all of these are on the screen."""
        try:
            wait_for(lambda: all(part in self.text for part in parts), f"{parts} on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text}") from None

    def close(self):
        self._run("kill-server")


def test_a_training_is_watched_paused_looked_back_at_and_left(places):
    command = [sys.executable, "-m", "monitor.cli", "demo", "--fault", "none"]
    terminal = Terminal(places, [*command, "--steps", "100000", "--fps", "10"])
    try:
        terminal.shows("demo-bert", "connecting", "[1 Overview]")
        terminal.shows("● live", "BertForMaskedLM", "training/loss")
        terminal.press("5")
        terminal.shows("[5 Metrics]", "Charts ·")
        terminal.press("p")
        terminal.shows("training paused", "Resume training")
        terminal.press(",", ",")
        terminal.shows("‖ training and view paused", "back")
        terminal.press("Space", "p")
        terminal.shows("▶ training")
        terminal.press("?")
        terminal.shows("Esc closes")
        terminal.press("?")  # not Escape: with the next key it would be read as one with Alt
        wait_for(lambda: "Esc closes" not in terminal.text, "the help's end")
        (entry,) = list_runs()
        terminal.press("q")
        wait_for(terminal.status.exists, "the monitor's end")
        wait_for(lambda: terminal.status.read_text().strip() == "0", "its status")
        assert not entry.alive  # leaving the demo ends its training
    finally:
        terminal.close()
