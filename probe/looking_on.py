"""The part of a probe that looks on where nothing is trained (:mod:`probe.following`)."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn

from probe.anatomy import ModelParts
from probe.batch import read_output
from probe.between import Between
from probe.budget import Budget
from probe.following import DROPOUT_ON, Following, drops_out
from probe.frames import FrameDraft
from probe.lifecycle import Lifecycle
from probe.listening import Listening
from probe.pausing import Pause
from probe.sample import Sample
from probe.scalars import kept
from probe.stopwatch import Stopwatch


class LookingOn(Lifecycle):
    """Each forward without training is a step, as long as no other kind was seen."""

    _following: Following | None = None
    """Where nothing is trained, as far as is known."""
    _listening: Listening | None
    _sample: Sample | None
    _stopwatch: Stopwatch
    _budget: Budget
    _between: Between
    _pause: Pause
    _wanted: bool
    _parts: ModelParts | None
    _looking = False
    _asked = False
    _told: frozenset[str] = frozenset()

    def _publish_header(self) -> None:
        """Begin the stream with what ``_sample`` has seen."""
        raise NotImplementedError

    def _count(self, seconds: float, frame: FrameDraft | None) -> None:
        """Account for a step that took ``seconds`` and begin the next."""
        raise NotImplementedError

    def _hold(self) -> None:
        """Wait while a monitor pauses the process."""
        raise NotImplementedError

    def _look_on(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A forward without training begins: a step of its own, where nothing is trained."""
        follow, listening = self._following, self._listening
        if follow is None:
            self._see_dropout(module)
        if follow is None or listening is None:
            return
        try:
            with self._stopwatch:
                self._crash = None  # whatever it was, the process has got over it
                inner = self._wanted and not listening.compiled
                if follow.begins(module, args, kwargs, self._wanted, inner):
                    self._outlet.settle()
                    self._outlet.row.began = self._looking = True
        except Exception as error:
            self._fail(error)

    def _see_dropout(self, module: nn.Module) -> None:
        """Of a model that trains: tell once if it is evaluated as if it trained."""
        if not module.training or self._asked or self._parts is None:
            return
        try:
            self._asked = True
            if drops_out(self._parts):
                self._outlet.event("dropout_on", DROPOUT_ON)
        except Exception as error:
            self._fail(error)

    def _looked_on(self, out: Any) -> None:
        """It ended, also where it raised: then without an output."""
        follow = self._following
        if follow is None or not self._looking:
            return
        try:
            self._looking = False
            with self._stopwatch:
                if out is None:
                    follow.drop()
                    self._see_crash(sys.exc_info()[1], None)
                    return
                follow.ended(out)
                loss = read_output(out)[0]
                if loss is not None:
                    self._outlet.row.losses.append(kept(loss))
                if follow.whole and not self._outlet.opened:
                    self._sample = follow.sample
                    self._publish_header()
                    self._sample = None
                frame = follow.frame(self._outlet.row.step, out, self._between.take)
                if follow.reason and follow.reason not in self._told:
                    self._told |= {follow.reason}
                    self._outlet.event("note", follow.reason)
                if self._wanted and follow.warns():
                    self._outlet.event("dropout_on", DROPOUT_ON)
            self._count(follow.seconds(), frame)
            if self._publisher.failed is not None:  # which was told when it happened
                self._fail(self._publisher.failed, told=True)
            elif self._pause.held:
                self._hold()
            self._wanted = self._budget.wants(self._outlet.row.step)
        except Exception as error:
            self._fail(error)
