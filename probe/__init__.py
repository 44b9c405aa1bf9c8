"""The probe: measures a transformer from inside its training process, as a guest.

``probe.attach(model, optimizer)`` is all a training script needs. Names load on first use, so that
reading traces and talking to a run (``probe.schema``, ``probe.trace``) never imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probe.attaching import Probe, attach

__all__ = ["Probe", "attach"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from probe import attaching

        return getattr(attaching, name)
    raise AttributeError(f"module 'probe' has no attribute {name!r}")
