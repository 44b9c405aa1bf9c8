"""The feature table of a corpus: what is learnt from, small enough to be kept with the code.

A folder of shards and ``table.json``, which lists them with their checksums. Shards are written
once and never changed; more can be added. A shard is a zip of numpy arrays (nothing pickled) under
LZMA, and holds some runs: their lines of the corpus's manifest, the anatomies of their models, and
the features of their samples (:func:`diagnoser.dataset.moments`), float16, a kind's by feature so
that like stands by like, low and high bytes apart. ``layout-*.json`` says what the features are: a
shard stays of use when metrics or rules are added (:mod:`diagnoser.layout`). ``audit.jsonl`` tells
what the corpus left out.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from diagnoser import schema
from diagnoser.dataset import Sample, moments, sample_of
from diagnoser.graph import build
from diagnoser.layout import Layout, Reading, clash, current
from diagnoser.manifest import CorpusError, Run
from probe.schema import Anatomy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from diagnoser.extract import Extracted

INDEX = "table.json"
AUDIT = "audit.jsonl"
VERSION = 2
RUNS_IN_A_SHARD = 400
MANTISSA = 10
"""Bits of a float16's mantissa."""


class Shard(msgspec.Struct, frozen=True):
    """A file of the table. ``layout``: digest of the layout it has. ``samples``: how many moments
    of its runs it holds."""

    file: str
    layout: str
    sha256: str
    bytes: int
    runs: int
    samples: int


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """``table.json``.

    ``bits``: of the mantissa that are kept. ``corpus``: checksum of the corpus's manifest, or of
    those of several (:func:`joined`).
    """

    version: int
    corpus: str
    bits: int
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Table:
    """A table in memory. ``checksum``: of the corpus it was packed from. ``lines``: of the runs, as
    they stand in the corpus's manifest. ``audits``: lines of what was left out."""

    runs: tuple[Run, ...]
    checksum: str
    lines: tuple[bytes, ...]
    audits: tuple[bytes, ...]
    _samples: dict[str, tuple[Sample, ...]]

    def samples(self, runs: Iterable[Run] | None = None) -> list[Sample]:
        """Samples of the given runs (all by default)."""
        chosen = self.runs if runs is None else runs
        return [sample for run in chosen for sample in self._samples[run.id]]


def rounded(values: npt.NDArray[np.float16], bits: int) -> npt.NDArray[np.float16]:
    """Values with ``bits`` bits of mantissa, rounded half up in magnitude; 10 changes nothing.

    What would leave float16's range is cut instead.
    """
    drop = MANTISSA - bits
    if drop == 0:
        return values
    raw = values.view(np.uint16).astype(np.uint32)
    up = (raw + (1 << (drop - 1))) >> drop << drop
    up = np.where((up & 0x7C00) == 0x7C00, raw >> drop << drop, up)
    return up.astype(np.uint16).view(np.float16)


def is_table(folder: Path) -> bool:
    """Whether the folder holds a table (and not a corpus of traces)."""
    return (folder / INDEX).is_file()


def joined(*checksums: str) -> str:
    """Checksum of several corpora, learnt from as one; that of a single one is its own."""
    if len(checksums) == 1:
        return checksums[0]
    return hashlib.sha256("\n".join(checksums).encode()).hexdigest()[:16]


def pack(
    extracted: Extracted,
    folder: Path,
    bits: int = MANTISSA,
    report: Callable[[Shard], None] = lambda shard: None,
    *,
    add: bool = False,
) -> Index:
    """Write the samples of a corpus's runs as a table. ``bits``: of the mantissa to keep, 3 to 10.

    ``add``: to the table that the folder holds, in shards of their own. Raises
    :class:`CorpusError` where it holds one and ``add`` is not set, or where the two do not fit.
    """
    if not 3 <= bits <= MANTISSA:
        raise CorpusError(f"a mantissa keeps 3 to {MANTISSA} bits, not {bits}")
    if is_table(folder) and not add:
        raise CorpusError(
            f"{folder} holds a table already: choose another folder, or add the runs to it with "
            "--add"
        )
    before = _to_be_joined(folder, extracted, bits) if add else None
    folder.mkdir(parents=True, exist_ok=True)
    lines = extracted.manifest.lines()
    layout = current()
    _put(folder / _layout_file(layout.digest), msgspec.json.format(msgspec.json.encode(layout)))
    shards = list(before.shards) if before else []
    for first in range(0, len(extracted.runs), RUNS_IN_A_SHARD):
        runs = extracted.runs[first : first + RUNS_IN_A_SHARD]
        shards.append(_write(folder, len(shards), runs, lines, extracted, bits, layout.digest))
        report(shards[-1])
    checksum = extracted.manifest.checksum
    index = Index(
        version=VERSION,
        corpus=joined(before.corpus, checksum) if before else checksum,
        bits=bits,
        shards=tuple(shards),
    )
    audits = [*_audits(folder), *_audits(extracted.manifest.folder)]
    _put(folder / AUDIT, b"".join(line + b"\n" for line in dict.fromkeys(audits)))
    _put(folder / INDEX, msgspec.json.format(msgspec.json.encode(index), indent=1) + b"\n")
    return index


def _to_be_joined(folder: Path, extracted: Extracted, bits: int) -> Index:
    """Index of the table there, which the corpus's runs are to be added to."""
    there = {run.id: run for run in read(folder).runs}
    index = _index(folder)
    if index.bits != bits:
        raise CorpusError(
            f"the table in {folder} keeps {index.bits} bits: pass --bits {index.bits}"
        )
    for run in extracted.runs:
        if run.id in there:
            raise CorpusError(f"the table in {folder} holds the run {run.id} already")
        if run.final != next(iter(there.values())).final:
            raise CorpusError("runs of the final hold-out and others may not be in one table")
    return index


def _audits(folder: Path) -> list[bytes]:
    """Lines of what was left out of the corpus, or table, in the folder."""
    path = folder / AUDIT
    return path.read_bytes().splitlines() if path.is_file() else []


def _put(path: Path, data: bytes) -> None:
    """Write a file that is never seen half written."""
    temporary = path.with_name(f"{path.name}.partial")
    temporary.write_bytes(data)
    temporary.replace(path)


def _write(
    folder: Path,
    number: int,
    runs: Sequence[Run],
    lines: dict[str, bytes],
    extracted: Extracted,
    bits: int,
    layout: str,
) -> Shard:
    anatomies: dict[bytes, int] = {}
    places, of_run, frames, faulty, fired = [], [], [], [], []
    blocks: dict[str, list[npt.NDArray[np.float16]]] = {kind: [] for kind in schema.node_kinds()}
    for at, run in enumerate(runs):
        found = extracted.features(run)
        places.append(
            anatomies.setdefault(msgspec.msgpack.encode(found.header.anatomy), len(anatomies))
        )
        for frame, sick in moments(run, found):
            of_run.append(at)
            frames.append(frame)
            faulty.append(sick)
            fired.append(found.fired[frame])
            for kind, values in found.nodes.items():
                blocks[kind].append(values[frame])
    arrays: dict[str, npt.NDArray[Any]] = {
        "runs": _bytes(b"\n".join(lines[run.id] for run in runs)),
        "anatomies": _bytes(msgspec.msgpack.encode(list(anatomies))),
        "anatomy": np.array(places, dtype=np.int32),
        "run": np.array(of_run, dtype=np.int32),
        "frame": np.array(frames, dtype=np.int32),
        "faulty": np.array(faulty, dtype=bool),
        "fired": np.stack(fired).astype(np.float32) if fired else np.zeros((0, 0), np.float32),
    }
    for kind, parts in blocks.items():
        if parts:
            arrays[f"node_{kind}"] = _apart(rounded(np.concatenate(parts), bits))
    name = f"shard-{number:03d}.npz"
    data = _zipped(arrays)
    _put(folder / name, data)
    digest = hashlib.sha256(data).hexdigest()
    return Shard(name, layout, digest, len(data), len(runs), len(of_run))


def _bytes(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, dtype=np.uint8)


def _apart(values: npt.NDArray[np.float16]) -> npt.NDArray[np.uint8]:
    """(rows, features) -> (2, features, rows): low bytes, then high ones."""
    turned = np.ascontiguousarray(values.T.astype("<f2"))
    return np.ascontiguousarray(turned.view(np.uint8).reshape(*turned.shape, 2).transpose(2, 0, 1))


def _together(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
    """What :func:`_apart` took apart."""
    pairs = np.ascontiguousarray(planes.transpose(2, 1, 0))
    return pairs.view("<f2")[..., 0].astype(np.float16)


def _zipped(arrays: dict[str, npt.NDArray[Any]]) -> bytes:
    """As ``numpy.savez``, under LZMA; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        for name, values in arrays.items():
            part = io.BytesIO()
            np.lib.format.write_array(part, values, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_LZMA
            archive.writestr(entry, part.getvalue())
    return buffer.getvalue()


def read(folder: Path) -> Table:
    """Read a table. Raises :class:`CorpusError` where it is missing, damaged or of other code."""
    index = _index(folder)
    runs: list[Run] = []
    lines: list[bytes] = []
    samples: dict[str, tuple[Sample, ...]] = {}
    layouts = {shard.layout for shard in index.shards}
    readings = {digest: _reading(folder, digest) for digest in layouts}
    for shard in index.shards:
        path = folder / shard.file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CorpusError(f"{path} cannot be read ({error.strerror}): restore it") from None
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            raise CorpusError(f"{path} is not what was written there: restore it")
        for line, run, found in _read(data, readings[shard.layout]):
            lines.append(line)
            runs.append(run)
            samples[run.id] = found
    return Table(tuple(runs), index.corpus, tuple(lines), tuple(_audits(folder)), samples)


def _index(folder: Path) -> Index:
    try:
        index = msgspec.json.decode((folder / INDEX).read_bytes(), type=Index)
    except (OSError, msgspec.DecodeError) as error:
        raise CorpusError(f"no feature table in {folder} ({error}): pack a corpus first") from None
    if index.version != VERSION:
        raise CorpusError(f"the table in {folder} is of another version: pack it again")
    return index


def _layout_file(digest: str) -> str:
    return f"layout-{digest}.json"


def _reading(folder: Path, digest: str) -> Reading:
    """How shards of a layout are read. Raises :class:`CorpusError` where they mean other things."""
    path = folder / _layout_file(digest)
    try:
        layout = msgspec.json.decode(path.read_bytes(), type=Layout)
    except (OSError, msgspec.DecodeError) as error:
        raise CorpusError(f"{path} cannot be read ({error}): restore it") from None
    ours = current()
    if found := clash(layout, ours):
        raise CorpusError(
            f"the table in {folder} holds other features than this version makes ({found}): "
            "pack it again"
        )
    return Reading.of(layout, ours)


def _read(data: bytes, reading: Reading) -> list[tuple[bytes, Run, tuple[Sample, ...]]]:
    """Of every run its line, its label and its samples."""
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    lines = arrays["runs"].tobytes().split(b"\n")
    decode = msgspec.json.Decoder(Run).decode
    runs = [decode(line) for line in lines]
    anatomies = msgspec.msgpack.decode(arrays["anatomies"].tobytes(), type=list[bytes])
    graphs = [
        build(msgspec.msgpack.decode(anatomy, type=Anatomy), schema.node_kinds())
        for anatomy in anatomies
    ]
    rows = {
        kind: reading.nodes(kind, _together(arrays[f"node_{kind}"]))
        for kind in schema.node_kinds()
        if f"node_{kind}" in arrays
    }
    fired = reading.fired(arrays["fired"])
    done = dict.fromkeys(rows, 0)
    found: list[list[Sample]] = [[] for _ in runs]
    for number, at in enumerate(arrays["run"]):
        graph = graphs[arrays["anatomy"][at]]
        nodes = {}
        for kind, values in rows.items():
            count = len(graph.layers.get(kind, ()))
            nodes[kind] = values[done[kind] : done[kind] + count]
            done[kind] += count
        moment = int(arrays["frame"][number]), bool(arrays["faulty"][number])
        found[at].append(sample_of(runs[at], graph, moment, nodes, fired[number]))
    return [(line, run, tuple(own)) for line, run, own in zip(lines, runs, found, strict=True)]
