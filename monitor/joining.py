"""Two models of one run put together: the one read its beginning, the other what came after."""

from __future__ import annotations

from monitor.run_model import MAX_RANKS, MAX_SCALARS, RunModel


def join(model: RunModel, later: RunModel) -> None:
    """Add to ``model`` what ``later`` read after it, under the same header; that one is used up.

    Buckets of the histories do not lie where they would had one model read everything; what they
    keep (the lowest, the highest and the newest value, and marks) does.
    """
    if later.home == model.home or not model._histories:
        model.frames += later.frames
    for rank, history in later._histories.items():
        if rank in model._histories:
            model._histories[rank].join(history)
        elif len(model._histories) < MAX_RANKS:
            model._histories[rank] = history
    for name, ranks in later._scalars.items():
        if name not in model._scalars and len(model._scalars) >= MAX_SCALARS:
            continue
        held = model._scalars.setdefault(name, {})
        for rank, history in ranks.items():
            if rank in held:
                held[rank].join(history)
            elif len(held) < MAX_RANKS:
                held[rank] = history
    model.events.extend(later.events)
    model.end = later.end or model.end
    model._misfits += later._misfits
    model._measured |= later._measured
    for step in (later.first_step, later.step):
        if step is not None:
            model._see(step)
    for step, time in zip(later.clock._steps, later.clock._times, strict=True):
        model.clock.add(step, time)
    model._pace.extend(later._pace)
    model._groups = None
    model.version += 1
    model.contents += 1
