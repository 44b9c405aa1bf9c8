"""Starting trainings and monitors as processes, and waiting for what they do."""

import os
import subprocess
import sys
import time
from pathlib import Path

STAND_IN = Path(__file__).with_name("stand_in.py")
DEADLINE = 60.0


def wait_for(condition, what, deadline=DEADLINE):
    """Poll until the condition holds; fails with ``what`` if it never does."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"never happened: {what}")


class StandIn:
    """A running stand-in training."""

    def __init__(self, directory, *options, name="standin"):
        self.name = name
        self.trace = directory / f"{name}.trace"
        self.steps_file = directory / f"{name}.steps"
        words = [sys.executable, str(STAND_IN), "--name", name, "--trace", str(self.trace)]
        words += ["--steps-file", str(self.steps_file), *options]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.run = self.process.stdout.readline().strip()
        assert self.run, "the stand-in did not start"

    @property
    def step(self):
        """The last step it did."""
        if not self.steps_file.exists():
            return -1
        lines = self.steps_file.read_text().split("\n")
        return int(lines[-2]) if len(lines) > 1 else -1

    def finish(self):
        """Let it end in order."""
        self.process.communicate(timeout=DEADLINE)
        return self.process.returncode

    def kill(self):
        self.process.kill()
        self.process.wait(DEADLINE)


def monitor(*arguments, **options):
    """Start ``defaultpp-monitor`` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "monitor.cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | options.pop("env", {}),
        **options,
    )


def outcome(*arguments, **options):
    """Run ``defaultpp-monitor`` to its end: status, standard output, standard error."""
    process = monitor(*arguments, **options)
    out, err = process.communicate(timeout=150)
    return process.returncode, out, err


def drain(source, enough, what="the records"):
    """Read a source until ``enough(records, batch)``; all records and the last batch."""
    records = []
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        batch = source.read(timeout=0.1)
        records += batch.records
        if enough(records, batch):
            return records, batch
    raise AssertionError(f"never came: {what}; last {batch.link} {batch.text!r}")
