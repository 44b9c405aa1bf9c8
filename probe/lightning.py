"""The probe as a callback of Lightning's Trainer, under either of its names.

``from probe.lightning import ProbeCallback`` after ``import lightning`` (or ``pytorch_lightning``):
the callback is one of the package that was imported, of both where both were.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from probe.attaching import Probe, attach
from probe.called import FirstCalled, holding_most
from probe.compiled import compiled_in_place
from probe.optimizers import given, parameters_of

_PACKAGES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}


class Watching:
    """What the callback does. Keyword arguments are those of :func:`probe.attach`.

    The probe attaches to the module that the training step calls first of those that hold what is
    trained: the LightningModule itself or the model in it. The run is named after that module;
    resumed from a checkpoint, its steps go on. ``probe`` holds the :class:`~probe.Probe` once the
    first batch was seen.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.probe: Probe | None = None
        self._options = options
        self._waiting: FirstCalled | None = None
        self._losses: list[torch.Tensor] = []
        self._first: list[torch.optim.Optimizer] = []
        self._step = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Wait for the first call of the model."""
        optimizers = given(list(trainer.optimizers))
        trained = {id(p) for optimizer in optimizers for p in parameters_of(optimizer)}
        modules = holding_most(pl_module.modules(), trained)
        options = {"first_step": trainer.global_step} | self._options
        self._step = trainer.global_step

        def found(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.probe = attach(module, optimizers, **options)
            self._first = optimizers
            self.probe.forward_begins(module, args, kwargs)

        compiled = next((module for module in modules if compiled_in_place(module)), None)
        if compiled is not None:
            self.probe = attach(compiled, optimizers, **options)
        else:
            self._waiting = FirstCalled(modules, found)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """The first step had begun before its forward, in which the probe was attached."""
        first, self._first = self._first, []
        if self.probe is not None:
            for place in (at for at, one in enumerate(first) if one in given(optimizer)):
                self.probe.step_begins(place)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Hand on the loss of the training step, which may be more than the model's own."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor):
            self._losses.append(loss.detach())
        if trainer.global_step == self._step:
            return  # the optimizer waits for more batches
        self._step = trainer.global_step
        losses, self._losses = self._losses, []
        if self.probe is not None and losses:
            # Lightning divides each by the number of batches of the step.
            self.probe.log(loss=torch.stack(losses).sum())

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Hand on the results that the module logged as ``val_loss``, ``val_acc`` and the like."""
        if self.probe is None or trainer.sanity_checking:
            return
        found: dict[str, float] = {}
        for name, value in trainer.callback_metrics.items():
            words = str(name).lower().replace("/", "_").split("_")
            if words[0] in ("val", "valid", "validation", "eval"):
                kind = {"acc": "accuracy"}.get(words[-1], words[-1])
                if kind in ("loss", "accuracy"):
                    found.setdefault(kind, float(value))
        if found:
            self.probe.validation(**found)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The training ends by an exception, which the trace shall tell."""
        self._close(f"stopped by {type(exception).__name__}")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the trace and the sockets."""
        self._close("closed")

    def _close(self, reason: str) -> None:
        if self._waiting is not None:
            self._waiting.remove()
            self._waiting = None
        if self.probe is not None:
            self.probe.close(reason)
            self.probe = None


def _callback_classes() -> tuple[type, ...]:
    """``Callback`` of each package imported; of the one installed where none is. Raises
    ImportError."""
    present = [module for module in _PACKAGES.values() if module in sys.modules]
    if not present:
        installed = [m for name, m in _PACKAGES.items() if importlib.util.find_spec(name)]
        if not installed:
            raise ImportError(
                "probe.lightning needs Lightning: pip install lightning (or pytorch-lightning)"
            )
        present = installed[:1]
    return tuple(importlib.import_module(module).Callback for module in present)


if TYPE_CHECKING:

    class ProbeCallback(Watching):
        """``Trainer(callbacks=[ProbeCallback()])``, see :class:`Watching`."""


def __getattr__(name: str) -> Any:
    if name != "ProbeCallback":
        raise AttributeError(f"module 'probe.lightning' has no attribute {name!r}")
    return type("ProbeCallback", (Watching, *_callback_classes()), {"__doc__": Watching.__doc__})


__all__ = ["ProbeCallback"]
