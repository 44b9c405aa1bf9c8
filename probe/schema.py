"""The messages that travel on the wire and are stored in a trace.

Everything is a msgspec struct in MessagePack. A run's *stream* is a sequence of records
(:data:`Record`), numbered by ``seq`` from 0 without gaps: a header, then frames, scalars and
events, and an end if the run closed. A trace holds exactly these records. Requests and replies
(:data:`Request`, :data:`Reply`) travel on the ROUTER socket only; a :class:`Heartbeat` on the PUB
socket only. Nothing is ever unpickled, and sizes are bounded before decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from probe.nodes import kind_of

SCHEMA_VERSION = 1
MAX_MESSAGE_BYTES = 32 * 1024 * 1024

Form = Literal["residual", "share", "signed", "positive", "statistic"]
"""How a metric's value is to be read.

``residual``: >= 0, a relative error, healthy at the rounding of the dtype, read on a log scale.
``share``: within [0, 1], healthy at 0. ``signed``: healthy at 0 on both sides (a log ratio, a gap).
``positive``: > 0, read on a log scale. ``statistic``: any real number.
"""


class SchemaError(ValueError):
    """A message that is not ours, too large, or of a schema this version cannot read."""


class VersionError(SchemaError):
    """A header whose schema this version cannot read."""


class Metric(msgspec.Struct, frozen=True):
    """Definition of a named value. ``contract`` marks one whose healthy value is known exactly."""

    name: str
    nodes: tuple[str, ...]
    """Where it is measured; also at the nodes that are like these (see :mod:`probe.nodes`)."""
    form: Form
    unit: str
    meaning: str
    healthy: str
    source: str = ""
    contract: bool = False
    tolerance: float = 1e-3
    """For contracts: magnitudes up to this are rounding in float32 arithmetic."""
    per_head: bool = False
    """Measured for each attention head too, at sites such as ``attention@2.h5``."""
    rare: bool = False
    """Measured on few samples: the last value stands until the next."""


class Column(msgspec.Struct, frozen=True, array_like=True):
    """One position of a frame's value array: which metric, at which site.

    ``site`` is one of the anatomy's, or a head of one (see :mod:`probe.heads`).
    """

    site: str
    metric: str

    @property
    def key(self) -> str:
        return f"{self.site}/{self.metric}"


class Site(msgspec.Struct, frozen=True):
    """A component of this very model: ``[stack.]node@layer``, e.g. ``qkv@3`` or ``output``."""

    name: str
    node: str
    layer: int | None = None
    stack: str = ""
    modules: tuple[str, ...] = ()
    """Paths of the modules that implement it, from the model's root."""
    where: str = ""
    """``file:line`` of the class that owns the computation, where Python knows it."""


class Anatomy(msgspec.Struct, frozen=True):
    """What the probe found inside the model. Zero or an empty string where not found."""

    model: str
    kind: Literal["encoder", "decoder", "encoder-decoder", "unknown"]
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    parameters: int
    norm_order: Literal["pre", "post", "unknown"]
    positions: Literal["learned", "rotary", "relative", "none", "unknown"]
    sites: tuple[Site, ...]

    def site(self, name: str) -> Site | None:
        return next((site for site in self.sites if site.name == name), None)


class Header(msgspec.Struct, tag="header", kw_only=True):
    """First record of a stream. A later header (``revision`` + 1) replaces it for what follows."""

    seq: int
    schema: int = SCHEMA_VERSION
    revision: int = 0
    run: str
    """Sortable run id; unique."""
    name: str
    created: float
    host: str
    pid: int
    rank: int = 0
    world_size: int = 1
    anatomy: Anatomy
    metrics: tuple[Metric, ...]
    columns: tuple[Column, ...]
    absent: dict[str, str] = {}
    """Metric, or ``site/metric``, that is not measured on this model -> the reason."""
    facts: dict[str, str] = {}
    """What is true of the run from its start, in words (see :mod:`probe.facts`)."""
    settings: dict[str, str] = {}
    versions: dict[str, str] = {}

    def metric(self, name: str, node: str) -> Metric | None:
        """The definition of ``name`` at ``node``; one name may mean two things at two nodes."""
        kind = kind_of(node)
        return next((m for m in self.metrics if m.name == name and kind in m.nodes), None)


class Frame(msgspec.Struct, tag="frame", kw_only=True):
    """What one rank measured at one sampled step."""

    seq: int
    rank: int = 0
    step: int
    time: float
    """Unix time, seconds."""
    values: bytes
    """float32, little endian, in the order of the header's columns; NaN where not measured."""
    cost: float = 0.0
    """Seconds of probe time this sample took from the training thread."""

    @property
    def array(self) -> npt.NDArray[np.float32]:
        """Read-only view, shape (columns,)."""
        return np.frombuffer(self.values, dtype="<f4")


class FrameView(msgspec.Struct, tag="frame", kw_only=True):
    """A :class:`Frame` as :func:`decode_view` reads it: ``values`` stay where they were read, so
    that a hundred thousand frames are gone through without a copy of each. Never sent."""

    rank: int = 0
    step: int
    time: float
    values: memoryview


class Scalars(msgspec.Struct, tag="scalars", kw_only=True):
    """Per-step values for a batch of steps; ``values`` is float32, shape (steps, names)."""

    seq: int
    rank: int = 0
    names: tuple[str, ...]
    steps: tuple[int, ...]
    times: tuple[float, ...]
    values: bytes

    @property
    def array(self) -> npt.NDArray[np.float32]:
        return np.frombuffer(self.values, dtype="<f4").reshape(len(self.steps), len(self.names))


class Event(msgspec.Struct, tag="event", kw_only=True):
    """Something that happened at a step."""

    seq: int
    rank: int = 0
    step: int
    time: float
    kind: str
    """``attached``, ``paused``, ``resumed``, ``fault`` (injected on purpose), ``probe_off``,
    ``skipped_step``, ``crash``, ``note`` ..."""
    text: str
    details: dict[str, str] = {}
    """What a program wants to know of it; for a crash see :func:`probe.crash.describe`."""


class End(msgspec.Struct, tag="end", kw_only=True):
    """Last record of a stream that was closed; a killed run has none."""

    seq: int
    rank: int = 0
    step: int
    time: float
    reason: str


Record = Header | Frame | Scalars | Event | End
RecordView = Header | FrameView | Scalars | Event | End


class Heartbeat(msgspec.Struct, tag="heartbeat", kw_only=True):
    """Sent on PUB about once a second, never stored. Tells a reader what it may have missed."""

    run: str
    last_seq: int
    step: int
    state: Literal["waiting", "training", "paused", "closed", "off"]
    dropped: int = 0
    """Records the probe could not publish because its queue was full."""
    rejected: int = 0
    """Unreadable requests received and ignored."""
    overhead: float = float("nan")
    """Probe time over training time so far."""


class Hello(msgspec.Struct, tag="hello", kw_only=True):
    """First request of a monitor."""

    schema: int = SCHEMA_VERSION
    client: str = ""


class Backlog(msgspec.Struct, tag="backlog", kw_only=True):
    """Asks for the records ``first <= seq < last`` (``last`` None: up to the newest)."""

    first: int = 0
    last: int | None = None


class Control(msgspec.Struct, tag="control", kw_only=True):
    """``pause`` (a lease: renew it within :data:`PAUSE_LEASE_SECONDS`), ``resume``, ``step`` (one
    more, then paused again: a renewal too), ``sample``."""

    action: Literal["pause", "resume", "step", "sample"]


PAUSE_LEASE_SECONDS = 3.0

Request = Hello | Backlog | Control


class Welcome(msgspec.Struct, tag="welcome", kw_only=True):
    """Answer to hello. ``header`` is None until the model was seen."""

    run: str
    header: Header | None
    first_seq: int
    next_seq: int
    state: str


class BacklogPart(msgspec.Struct, tag="backlog_part", kw_only=True):
    """Some encoded records in order; ask again from ``next_seq`` while ``more``.

    Records that are no longer held are skipped: ``records`` may start after the asked seq.
    """

    records: tuple[bytes, ...]
    next_seq: int
    more: bool


class Done(msgspec.Struct, tag="done", kw_only=True):
    """A control request was carried out (``ok``) or not; ``text`` is for the person."""

    ok: bool
    text: str


Reply = Welcome | BacklogPart | Done

_encoder = msgspec.msgpack.Encoder()
_record_decoder = msgspec.msgpack.Decoder(Record)
_view_decoder = msgspec.msgpack.Decoder(RecordView)
_published_decoder = msgspec.msgpack.Decoder(Record | Heartbeat)
_request_decoder = msgspec.msgpack.Decoder(Request)
_reply_decoder = msgspec.msgpack.Decoder(Reply)


def encode(message: Record | Heartbeat | Request | Reply) -> bytes:
    """MessagePack bytes of any message of this module."""
    return _encoder.encode(message)


def _decode(decoder: msgspec.msgpack.Decoder[Any], data: bytes | memoryview) -> Any:
    if len(data) > MAX_MESSAGE_BYTES:
        raise SchemaError(f"message of {len(data)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    try:
        message = decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise SchemaError(f"not a message of this protocol: {error}") from None
    if isinstance(message, Header):
        _check_header(message)
    return message


def _check_header(header: Header) -> None:
    if header.schema != SCHEMA_VERSION:
        raise VersionError(
            f"schema {header.schema} was written by another version (this one reads "
            f"{SCHEMA_VERSION}): use the same defaultpp-monitor on both sides"
        )


def decode_record(data: bytes | memoryview) -> Record:
    """One record of a stream. Raises :class:`SchemaError`."""
    return _decode(_record_decoder, data)


def decode_view(data: bytes | memoryview) -> RecordView:
    """The same, a frame as a view of ``data``, which lives as long. Raises :class:`SchemaError`."""
    return _decode(_view_decoder, data)


def decode_records(payloads: Sequence[bytes | memoryview]) -> list[Record]:
    """Many at once, as :func:`decode_record`. Raises :class:`SchemaError` if any is none."""
    return _decode_all(_record_decoder, payloads)


def decode_views(payloads: Sequence[bytes | memoryview]) -> list[RecordView]:
    """Many at once, as :func:`decode_view`. Raises :class:`SchemaError` if any is none."""
    return _decode_all(_view_decoder, payloads)


def _decode_all(
    decoder: msgspec.msgpack.Decoder[Any], payloads: Sequence[bytes | memoryview]
) -> list[Any]:
    try:
        messages = list(map(decoder.decode, payloads))
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise SchemaError(f"not a message of this protocol: {error}") from None
    if Header in map(type, messages):
        for message in messages:
            if isinstance(message, Header):
                _check_header(message)
    return messages


def decode_published(data: bytes) -> Record | Heartbeat:
    """One message of the PUB socket. Raises :class:`SchemaError`."""
    return _decode(_published_decoder, data)


def decode_request(data: bytes) -> Request:
    """One request of a monitor. Raises :class:`SchemaError`."""
    return _decode(_request_decoder, data)


def decode_reply(data: bytes) -> Reply:
    """One reply of the probe. Raises :class:`SchemaError`."""
    return _decode(_reply_decoder, data)
