"""Tells whether a process noted earlier is still the same one."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def boot_id() -> str:
    """Names this boot of this machine; empty where the system does not tell."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def pid_namespace() -> str:
    """Names the set of processes among which a pid is unique: containers have their own."""
    try:
        return os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return ""


def start_time(pid: int) -> str:
    """When the process started, in the system's own unit; empty if unknown, gone or a zombie.

    With the pid it names a process for good, since pids are given out again.
    """
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return ""
    # The second field is the command in parentheses and may hold anything; state is the 3rd
    # field, the start time the 22nd (proc(5)).
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return ""
    return fields[19]


def started_at(pid: int) -> float:
    """The same in Unix time, to the second, alike for all who ask; 0 if unknown."""
    ticks = start_time(pid)
    try:
        lines = (_PROC / "stat").read_text().splitlines()
        booted = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
        return float(booted + int(ticks) // os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, StopIteration):
        return 0.0


def is_running(pid: int, started: str) -> bool:
    """Whether the process ``pid`` that started at ``started`` still runs here."""
    if pid <= 0:
        return False
    if started or _PROC.joinpath("self/stat").exists():
        now = start_time(pid)
        return bool(now) and (not started or now == started)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
