"""The state all probe arithmetic runs in: no gradients, no autocast, no torch function modes."""

from __future__ import annotations

from types import TracebackType

import torch


class quiet:
    """Context in which the probe computes without being seen by autograd, autocast or any mode.

    Autocast would make a checkpointed backward see other dtypes than the forward did; a user's own
    torch function mode has no business with our calls.
    """

    def __enter__(self) -> None:
        self._no_grad = torch.no_grad()
        self._no_grad.__enter__()
        # Entering an autocast context costs more than most of what is computed inside.
        self._casts = [
            torch.autocast(device, enabled=False)
            for device in ("cpu", "cuda")
            if torch.is_autocast_enabled(device)
        ]
        for cast in self._casts:
            cast.__enter__()
        self._modes = torch._C.DisableTorchFunction()
        self._modes.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._modes.__exit__(kind, error, tb)
        for cast in reversed(self._casts):
            cast.__exit__(kind, error, tb)
        self._no_grad.__exit__(kind, error, tb)
