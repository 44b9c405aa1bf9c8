"""Attaches to a training that does not call ``attach``: finds the model that an optimizer trains.

torch tells of every optimizer's step. After the first, the modules that hold what it trains are
looked for among all objects, once; of those the one that is called first in the next step is the
model, and is watched from that call on. (A hook on all modules would tell as well, but torch
compiles models anew when such a hook comes or goes.)
"""

from __future__ import annotations

import atexit
import gc
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from probe.notices import Notices, in_words

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from probe.attaching import Probe
    from probe.called import FirstCalled

_SHARES = (1.0, 0.5, 0.1)
"""A module that may be the model holds so much of what the best one holds: step after step less is
asked, since a module that holds all may be one that nobody calls."""


def attach_at_first_step(options: Mapping[str, Any]) -> None:
    """Begin the search; ``options`` are those of :func:`probe.attach`. Called once torch's
    optimizers can be had, at which time the rest of torch may still be loading."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(_Search(options).stepped)


class _Search:
    """Its hook stays, and does nothing any more: it cannot be taken off while it runs."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)
        self._steps: dict[int, tuple[weakref.ref[Optimizer], int]] = {}
        self._waiting: FirstCalled | None = None
        self._over = False
        self._notices = Notices()
        atexit.register(self._never)

    def stepped(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Hook of every optimizer's step."""
        if self._over:
            return
        try:
            _, steps = self._steps.get(id(optimizer), (None, 0))
            self._steps[id(optimizer)] = weakref.ref(optimizer), steps + 1
            if steps < len(_SHARES):
                self._look(_SHARES[steps])
            else:
                self._end("nothing is watched: no module that holds what is trained is called")
        except Exception as error:
            self._end(f"nothing is watched: {in_words(error)}")

    def _look(self, share: float) -> None:
        from probe.called import FirstCalled, holding_most
        from probe.compiled import compiled_in_place
        from probe.replacing import watched

        if self._waiting is not None:
            self._waiting.remove()
        optimizers = self._optimizers()
        trained = {id(p) for optimizer in optimizers for p in _parameters(optimizer)}
        modules = holding_most(_all_modules(), trained, share)
        compiled = next((m for m in modules if compiled_in_place(m)), None)
        if any(map(watched, modules)):
            self._end()
        elif compiled is not None:
            # Its calls cannot be seen from within; the probe itself sees them from outside.
            if _all_trained(compiled, trained) or share < 1.0:
                self._attach(compiled)
        else:
            self._waiting = FirstCalled(modules, self._called)

    def _called(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        try:
            probe = self._attach(module)
            probe.forward_begins(module, args, kwargs)
        except Exception as error:
            self._end(f"nothing is watched: {in_words(error)}")

    def _attach(self, model: nn.Module) -> Probe:
        from probe.attaching import attach

        own = {id(p) for p in model.parameters()}
        optimizers = [o for o in self._optimizers() if own & {id(p) for p in _parameters(o)}]
        taken = max(steps for _, steps in self._steps.values())
        self._end()
        return attach(model, optimizers, first_step=taken, **self._options)

    def _optimizers(self) -> list[Optimizer]:
        return [found for ref, _ in self._steps.values() if (found := ref()) is not None]

    def _end(self, text: str = "") -> None:
        self._over = True
        if self._waiting is not None:
            self._waiting.remove()
        self._waiting = None
        atexit.unregister(self._never)
        if text:
            self._notices.tell(text)

    def _never(self) -> None:
        self._end("nothing was watched: no model was seen to be trained by an optimizer of torch")


def _all_modules() -> list[nn.Module]:
    """Every module of the process: some tens of milliseconds."""
    from torch import nn

    # The type is asked, not the object: a stand-in for another object may do anything.
    return [o for o in gc.get_objects() if nn.Module in type(o).__mro__]


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _all_trained(model: nn.Module, trained: set[int]) -> bool:
    """Nothing in the model has a gradient that another optimizer would use."""
    return all(id(p) in trained for p in model.parameters() if p.grad is not None)
