"""``python -m monitor.demo_training``: the training that the demo watches, in its own process.

A small model of a chosen family trains on the standard library's own text, healthy at first; then
a fault is injected, by the operators that the diagnoser is tested with, on a seed that trained
nothing. The monitor sees what it sees of any run: the probe's messages.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from contextlib import ExitStack

USAGE = 64


def main(arguments: list[str] | None = None) -> int:
    """Train; status 64 where the fault does not fit the model."""
    options = _parser().parse_args(arguments)
    import probe
    from diagnoser.corpus.recipe import demo_recipe
    from diagnoser.corpus.training import Training
    from diagnoser.faults import OPERATORS, draw, inject
    from diagnoser.faults.fault import Fault

    def told(fault: Fault) -> str:
        operator = OPERATORS[fault.operator]
        text = f"injected {fault.category}/{fault.root_cause}: {operator.what}"
        if fault.parameter:
            text += f" ({fault.parameter} {fault.value})"
        if fault.layers:
            text += f" at layer{'s'[: len(fault.layers) > 1]} {', '.join(map(str, fault.layers))}"
        if operator.moment == "start":
            text += ", from the first step on, because it is a fault of initialisation"
        return text

    recipe = demo_recipe(options.model, options.seed)
    training = Training(recipe)
    fault: Fault | None = None
    if options.fault != "none":
        category, root_cause = options.fault.split("/")
        try:
            fault = draw(
                training.model,
                random.Random(options.seed),
                category=category,
                root_cause=root_cause,
                optimizer=training.optimizer,
                length=recipe.length,
                clip=recipe.clip,
            )
        except ValueError as error:
            print(error, file=sys.stderr)
            return USAGE
    begin = options.healthy
    with ExitStack() as faults:
        if fault is not None and OPERATORS[fault.operator].moment == "start":
            # Before the probe looks: a script with such a fault has it before attach as well.
            faults.enter_context(inject(training.model, training.optimizer, fault))
            begin = 0
        run = probe.attach(
            training.model,
            training.optimizer,
            run=options.name,
            trace=options.trace,
            every=1,
            budget=None,
        )
        with run:
            if options.wait:
                sys.stdin.readline()
                threading.Thread(target=_end_with_the_monitor, daemon=True).start()
            run.event("note", "demo: every step is sampled, whatever it costs")
            for step in range(options.steps):
                began = time.perf_counter()
                if fault is not None and step == begin:
                    if OPERATORS[fault.operator].moment != "start":
                        faults.enter_context(inject(training.model, training.optimizer, fault))
                    run.event("fault", told(fault))
                training.step()
                # A person shall see it happen; without one (pace 0) it runs as fast as it can.
                time.sleep(max(0.0, options.pace - (time.perf_counter() - began)))
            run.close("the demo's steps are done")
    return 0


def _end_with_the_monitor() -> None:
    """A demo is nobody's training: it ends when who holds its input is gone, however that went."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m monitor.demo_training")
    parser.add_argument("--model", choices=("bert", "gpt2", "llama"), default="bert")
    parser.add_argument("--fault", default="none", help="category/root_cause or none")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--healthy", type=int, required=True, help="steps before the fault")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--name", default="demo")
    parser.add_argument("--trace", default=None)
    wait = "begin when a line comes on stdin, end when stdin closes"
    parser.add_argument("--wait", action="store_true", help=wait)
    parser.add_argument("--pace", type=float, default=0.0, help="least seconds per step")
    return parser


def own_the_process() -> None:
    """Settings of a process that does nothing but this training."""
    import torch

    # As an exception it unwinds, so that the probe writes the end of the trace.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    torch.set_num_threads(1)  # the other core is for the monitor


if __name__ == "__main__":
    own_the_process()
    sys.exit(main())
