"""The probe as a callback of the transformers Trainer."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from probe.attaching import Probe, attach


class ProbeCallback(TrainerCallback):
    """``Trainer(..., callbacks=[ProbeCallback()])``: attaches when training begins.

    Keyword arguments are those of :func:`probe.attach`. The run is named after the Trainer's
    ``run_name``, else after the model; resumed from a checkpoint it has the same name, and its
    steps go on. ``probe`` holds the :class:`~probe.Probe` while training.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self.probe: Probe | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Attach to the model and optimizer the Trainer made."""
        model, optimizer = kwargs.get("model"), kwargs.get("optimizer")
        if model is None:
            return
        options = dict(self._options)
        name = getattr(args, "run_name", None)
        if name and name != getattr(args, "output_dir", None):
            options.setdefault("run", name)
        # A training that goes on from a checkpoint goes on counting.
        options.setdefault("first_step", getattr(state, "global_step", 0))
        self.probe = attach(model, optimizer, **options)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hand the evaluation's results on."""
        metrics = kwargs.get("metrics") or {}
        found = {
            name: metrics[f"eval_{name}"]
            for name in ("accuracy", "loss")
            if f"eval_{name}" in metrics
        }
        if self.probe is not None and found:
            self.probe.validation(**found)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the trace and the sockets."""
        if self.probe is not None:
            self.probe.close()
            self.probe = None
