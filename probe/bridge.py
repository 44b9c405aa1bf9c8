"""``python -m probe.bridge``: carries a run's messages over standard input and output.

Started on the run's machine by the monitor's ``ssh``: one login, no open port. Writes the frames of
:mod:`probe.bridge_frames` and ends when its input closes. Never imports torch: it must be there
within a moment, on a machine whose cores are busy training.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import BinaryIO

import msgspec
import zmq

from probe.bridge_frames import (
    ENTRY,
    GONE,
    GREETING,
    PUBLISHED,
    REFUSAL,
    REPLY,
    REQUEST,
    FrameError,
    FrameReader,
    pack,
)
from probe.endpoint import EndpointError, secure_client
from probe.registry import DirectoryError, RegistryError, RunEntry, find, list_runs
from probe.remains import OutlivingTransport
from probe.transport import REQUEST_ID_BYTES, SocketTransport, Transport

REQUEST_LIMIT = 64 * 1024
CHECK_SECONDS = 1.0
REFUSED = 3


class Refusal(Exception):
    """There is nothing to carry; the message is one sentence for the person."""


def choose(name: str | None) -> RunEntry:
    """The run to carry: the named one, else the only one. Raises :class:`Refusal`."""
    try:
        if name:
            return find(name)
        entries = [entry for entry in list_runs() if entry.publish]
    except (RegistryError, DirectoryError) as error:
        raise Refusal(str(error)) from None
    runs = list(dict.fromkeys(entry.run for entry in entries))
    if not runs:
        raise Refusal(
            "no run is there: start the training with probe.attach(model, optimizer) in its script"
        )
    if len(runs) > 1:
        names = ", ".join(dict.fromkeys(f"{e.name} ({e.run})" for e in entries))
        raise Refusal(f"several runs are there, so add one to the address: {names}")
    return min(entries, key=lambda entry: entry.rank)


def open_run(entry: RunEntry) -> Transport:
    """Sockets to a registered run, and behind them its trace. Raises :class:`Refusal`."""
    if not entry.publish or not entry.control:
        raise Refusal(f"run {entry.name} has no sockets; its trace is {entry.trace or 'off'}")
    try:
        sockets = SocketTransport(
            entry.publish, entry.control, lambda opened: secure_client(opened, entry.key)
        )
    except EndpointError as error:
        raise Refusal(str(error)) from None
    except zmq.ZMQError as error:
        raise Refusal(f"{entry.publish} cannot be used: {error}") from None
    if not entry.here:
        return sockets
    return OutlivingTransport(sockets, entry.trace, lambda: not entry.alive)


def carry(entry: RunEntry, transport: Transport, source: int, sink: BinaryIO) -> None:
    """Pass messages both ways until ``source`` (a file descriptor) closes."""
    reader = FrameReader(greeting=False, limit=REQUEST_LIMIT)
    poller = zmq.Poller()
    poller.register(source, zmq.POLLIN)
    for pollable in transport.pollables():
        poller.register(pollable, zmq.POLLIN)
    checked = time.monotonic()
    told = False
    while True:
        ready = dict(poller.poll(int(CHECK_SECONDS * 1000)))
        if source in ready:
            data = os.read(source, 65536)
            if not data:
                return
            for kind, body in reader.feed(data):
                if kind == REQUEST and len(body) > REQUEST_ID_BYTES:
                    transport.request(body[:REQUEST_ID_BYTES], body[REQUEST_ID_BYTES:])
        # Few at a time: a slow link must not keep requests (pause!) waiting behind a backlog.
        arrivals = transport.receive(100)
        for number, payload in arrivals:
            if number is None:
                sink.write(pack(PUBLISHED, payload))
            else:
                sink.write(pack(REPLY, number + payload))
        if not arrivals and not told and time.monotonic() - checked >= CHECK_SECONDS:
            checked = time.monotonic()
            if entry.here and not entry.alive:
                sink.write(pack(GONE, b""))
                told = True
        sink.flush()


def main(arguments: list[str] | None = None) -> int:
    """Run the bridge; exit status 0, or 3 where there is nothing to carry."""
    parser = argparse.ArgumentParser(
        prog="python -m probe.bridge",
        description="Carry a run's messages over standard input and output (started by ssh).",
    )
    parser.add_argument("--run", help="name or id of the run; default: the only one")
    parser.add_argument("--list", action="store_true", help="print the runs, one per line")
    options = parser.parse_args(arguments)
    sink = sys.stdout.buffer
    try:
        if options.list:
            for entry in list_runs():
                print(f"{entry.name}\t{entry.run}\t{entry.host}\t{entry.pid}")
            return 0
        sink.write(GREETING)
        try:
            entry = choose(options.run)
            transport = open_run(entry)
        except Refusal as error:
            sink.write(pack(REFUSAL, str(error).encode()))
            sink.flush()
            return REFUSED
        # The key stays here: whoever reads this stream already has a login on this machine.
        sink.write(pack(ENTRY, msgspec.json.encode(msgspec.structs.replace(entry, key=""))))
        sink.flush()
        try:
            carry(entry, transport, sys.stdin.fileno(), sink)
        finally:
            transport.close()
    except (BrokenPipeError, KeyboardInterrupt, FrameError):
        # The monitor went away or talks nonsense: nothing to clean up, nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except DirectoryError as error:
        print(error, file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
