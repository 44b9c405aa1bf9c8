"""The probe: measures a transformer from inside its training process, as a guest.

``probe.attach(model, optimizer)`` is all a training script needs; ``probe.calibration_error``
is for its validations. Names load on first use, so that reading traces and talking to a run
(``probe.schema``, ``probe.trace``) never imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probe.attaching import Probe, attach
    from probe.calibration import calibration_error

__all__ = ["Probe", "attach", "calibration_error"]


def __getattr__(name: str) -> Any:
    if name == "calibration_error":
        from probe import calibration

        return calibration.calibration_error
    if name in __all__:
        from probe import attaching

        return getattr(attaching, name)
    raise AttributeError(f"module 'probe' has no attribute {name!r}")
