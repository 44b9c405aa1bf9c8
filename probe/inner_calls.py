"""Shows the calls that ``nn.MultiheadAttention`` makes inside, which no function mode sees.

While it runs, torch hands the whole of ``multi_head_attention_forward`` to a mode and none of the
calls within. So for the time of that one call the functions it looks up are replaced by ones that
call them and report. Only in training forwards that are sampled: in evaluation a replaced function
could keep torch from its fast path.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F

See = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], None]
"""Told of each call: function, result, arguments, named arguments."""

_PLACES: tuple[tuple[Any, str, Any], ...] = (
    (F, "scaled_dot_product_attention", F.scaled_dot_product_attention),
    (F, "softmax", F.softmax),
    (F, "dropout", F.dropout),
    (torch, "bmm", torch.bmm),
    (torch, "baddbmm", torch.baddbmm),
)
"""Where the functions are looked up, and torch's own, as which a call is reported."""
_replacing = threading.Lock()


@contextmanager
def shown_to(see: See) -> Iterator[None]:
    """Report to ``see`` what this thread calls inside. Other threads' calls pass unreported, and
    of several threads that want to see at once, one does."""
    if not _replacing.acquire(blocking=False):
        yield
        return
    own = threading.get_ident()
    originals = [getattr(module, name) for module, name, _ in _PLACES]
    reporters = [
        _reporting(original, known, see, own)
        for original, (_, _, known) in zip(originals, _PLACES, strict=True)
    ]
    try:
        for (module, name, _), reporter in zip(_PLACES, reporters, strict=True):
            setattr(module, name, reporter)
        yield
    finally:
        for place, original, reporter in zip(_PLACES, originals, reporters, strict=True):
            module, name, _ = place
            if getattr(module, name) is reporter:
                setattr(module, name, original)
        _replacing.release()


def _reporting(function: Any, known: Any, see: See, thread: int) -> Any:
    @wraps(function)
    def report(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if threading.get_ident() == thread:
            see(known, result, args, kwargs)
        return result

    return report
