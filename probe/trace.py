"""The trace: a saved run. This is its public surface.

:class:`TraceWriter` stores a run as it happens, :class:`TraceReader` reads it and follows one that
grows, :func:`load` reads a whole one. The format is described in :mod:`probe.trace_format`.
"""

from probe.trace_format import FORMAT_VERSION, TraceError
from probe.trace_reader import TraceReader, load
from probe.trace_writer import DEFAULT_CAP_BYTES, TraceWriter

__all__ = [
    "DEFAULT_CAP_BYTES",
    "FORMAT_VERSION",
    "TraceError",
    "TraceReader",
    "TraceWriter",
    "load",
]
