"""A trace that is treated as a long one, and the model that all of it makes."""

from monitor.run_model import RunModel
from monitor.sources import later_part, overview_file, replay
from monitor.sources.fake import Script, records
from monitor.sources.source import Batch

SCRIPT = Script(steps=600, every=5, layers=2, fault_step=300, fault_layer=1, nan_steps=(100,))


def counts_as_long(monkeypatch, cache, processes):
    """From 1,000 bytes on, read in short stretches; ``processes``: how many may read it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(overview_file, "LEAST_BYTES", 1000)
    monkeypatch.setattr(later_part, "LEAST_BYTES", 1000)
    monkeypatch.setattr(later_part.os, "cpu_count", lambda: processes)
    monkeypatch.setattr(replay, "LOAD_CHUNK", 20)
    monkeypatch.setattr(replay, "AHEAD_CHUNK", 30)
    monkeypatch.setattr(replay, "RETELL_AFTER", 0.0)


def full_model(found=None):
    """``found``: other records than those of :data:`SCRIPT`."""
    model = RunModel()
    model.take(Batch(records=tuple(records(SCRIPT) if found is None else found), link="replay"))
    return model
