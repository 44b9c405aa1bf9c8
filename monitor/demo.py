"""The demo's training process, and the source that shows it from its first moment on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from monitor.sources.source import Batch, SourceError
from monitor.usage import UsageError
from probe.schema import Control

if TYPE_CHECKING:
    from monitor.sources.live import LiveSource
    from probe.registry import RunEntry

FIRST_SEED = 1_000_000
"""Seeds from here on trained nothing (diagnoser.corpus.FIRST_UNSEEN_SEED)."""
MODELS = ("bert", "gpt2", "llama")
DEFAULT_FAULT = "masking/mask_application"
DEFAULT_STEPS = 180
HEALTHY_STEPS = 60
FEWEST_STEPS = 2
PACE_SECONDS = 0.08
"""Least time of a step on the screen: about as slow as a training of use, and watchable."""
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Demo:
    """What to train. ``fault`` is ``category/root_cause`` or ``none``."""

    fault: str = DEFAULT_FAULT
    model: str = "bert"
    steps: int = DEFAULT_STEPS
    seed: int = FIRST_SEED
    trace: Path | None = None
    pace: float = PACE_SECONDS

    @property
    def healthy_steps(self) -> int:
        """Steps before the fault: 60, or a third of a short demo."""
        return min(HEALTHY_STEPS, self.steps // 3)

    @property
    def name(self) -> str:
        return f"demo-{self.model}"

    def check(self) -> None:
        """Raises :class:`UsageError` for what cannot be shown."""
        if self.steps < FEWEST_STEPS:
            raise UsageError(f"a demo takes at least {FEWEST_STEPS} steps")
        if self.seed < FIRST_SEED:
            raise UsageError(
                f"seeds below {FIRST_SEED} may have trained the diagnoser: choose one from there on"
            )
        if self.fault != "none":
            check_fault(self.fault, self.model)

    def command(self) -> list[str]:
        """What starts the training."""
        words = [sys.executable, "-m", "monitor.demo_training", "--model", self.model]
        words += ["--fault", self.fault, "--steps", str(self.steps)]
        words += ["--healthy", str(self.healthy_steps), "--seed", str(self.seed)]
        words += ["--name", self.name, "--pace", str(self.pace)]
        return [*words, "--wait", *(["--trace", str(self.trace.absolute())] if self.trace else [])]


def check_fault(fault: str, model: str) -> None:
    """Raises :class:`UsageError` unless the taxonomy has this fault and it can befall the model."""
    from diagnoser.taxonomy import operators, root_causes

    if fault not in root_causes():
        category = fault.partition("/")[0]
        known = [key for key in root_causes() if key.startswith(f"{category}/")]
        raise UsageError(
            f"{fault} is not a fault of the taxonomy; "
            + (
                f"there are {', '.join(known)}"
                if known
                else "its categories are "
                + ", ".join(dict.fromkeys(key.partition("/")[0] for key in root_causes()))
            )
        )
    kind = "encoder" if model == "bert" else "decoder"
    scopes = {
        operator.scope
        for operator in operators().values()
        if f"{operator.category}/{operator.root_cause}" == fault
    }
    if not scopes & {"both", kind}:
        needed = (
            "a decoder: --model gpt2 or llama" if kind == "encoder" else "an encoder: --model bert"
        )
        raise UsageError(f"{fault} needs {needed}")


class DemoTraining:
    """The process that trains. It is started here, and ends with :meth:`end`, not with a source."""

    def __init__(self, demo: Demo) -> None:
        """Raises :class:`SourceError` where the process cannot be started."""
        self.title = demo.name
        descriptor, log = tempfile.mkstemp(prefix="defaultpp-demo-", suffix=".log")
        self.log = Path(log)
        try:
            # A session of its own: Ctrl-C at the terminal is for the monitor to handle.
            self._process = subprocess.Popen(
                demo.command(),
                stdin=subprocess.PIPE,
                stdout=descriptor,
                stderr=descriptor,
                cwd="/",  # so that a module of the user's named probe or monitor is not imported
                start_new_session=True,
            )
        except OSError as error:
            self.log.unlink(missing_ok=True)
            raise SourceError(f"the training cannot be started: {error.strerror}") from None
        finally:
            os.close(descriptor)

    def __enter__(self) -> DemoTraining:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    @property
    def status(self) -> int | None:
        """Exit status of the training; None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float) -> None:
        """Until the process ended, at most ``timeout`` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)

    def begin(self) -> None:
        """Let it train now that it is being watched: a short training would be over else.

        The pipe stays open: when it closes, even by this process being killed, the training ends.
        """
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(b"\n")
                self._process.stdin.flush()

    def end(self) -> None:
        """End the training. May be called twice."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=3.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.log.unlink(missing_ok=True)

    def entry(self) -> RunEntry | None:
        """The run as registered by its probe; None before that."""
        from probe.registry import list_runs

        for entry in list_runs():
            if entry.pid == self._process.pid and entry.here:
                return entry
        return None

    def last_words(self) -> str:
        """The last line that the training wrote to its standard error."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1][:300] if lines else "nothing"


class DemoSource:
    """A source that waits for a demo's training to appear; then a live source.

    The screen is there at once, while the process still loads torch. Closing lets go of the run,
    which trains on: another run may be looked at in between.
    """

    def __init__(self, training: DemoTraining) -> None:
        self.title = training.title
        self._training = training
        self._live: LiveSource | None = None
        self._told = False
        self._begun = False
        self._over = threading.Event()

    def read(self, limit: int = 500, timeout: float = 0.25) -> Batch:
        if self._live is None:
            ended = self._training.status is not None
            entry = self._training.entry()
            if entry is not None:
                from monitor.sources.live import open_entry

                self._live = open_entry(entry)
            elif ended:
                self._over.wait(timeout)  # the process is gone: nothing else to wait for
                said = self._training.last_words()
                return Batch(link="lost", text=f"The training could not start: {said}")
            else:
                self._training.wait(min(timeout, POLL_SECONDS))
                text, self._told = ("" if self._told else "Starting the training."), True
                return Batch(link="connecting", text=text)
        batch = self._live.read(limit, timeout)
        if batch.link == "live" and not self._begun:
            self._begun = True
            self._training.begin()
        if batch.link == "lost" and batch.text and self._training.status not in (None, 0):
            return replace(batch, text=f"{batch.text} It said: {self._training.last_words()}")
        return batch

    def send(self, control: Control) -> str:
        if self._live is None:
            return f"The training is still starting: nothing to {control.action} yet."
        return self._live.send(control)

    def close(self) -> None:
        self._over.set()
        if self._live is not None:
            self._live.close()
        # Unwatched it trains as well, so that it can be come back to.
        self._training.begin()
