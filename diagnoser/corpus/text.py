"""Real text that is on every machine with Python: the standard library's sources and docstrings."""

from __future__ import annotations

import inspect
import re
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from diagnoser.corpus import CorpusError

# A fixed list, not a directory listing: the order, and with it every batch, must not depend on
# what a distribution adds to or leaves out of its library. Absent modules are skipped.
MODULES = (
    "argparse.py",
    "ast.py",
    "calendar.py",
    "cgitb.py",
    "codecs.py",
    "collections/__init__.py",
    "configparser.py",
    "contextlib.py",
    "csv.py",
    "dataclasses.py",
    "difflib.py",
    "doctest.py",
    "email/header.py",
    "enum.py",
    "fractions.py",
    "ftplib.py",
    "functools.py",
    "gettext.py",
    "heapq.py",
    "http/client.py",
    "imaplib.py",
    "inspect.py",
    "ipaddress.py",
    "locale.py",
    "logging/__init__.py",
    "mailbox.py",
    "mimetypes.py",
    "optparse.py",
    "pickletools.py",
    "platform.py",
    "plistlib.py",
    "random.py",
    "shutil.py",
    "smtplib.py",
    "socket.py",
    "statistics.py",
    "subprocess.py",
    "tarfile.py",
    "textwrap.py",
    "threading.py",
    "traceback.py",
    "turtle.py",
    "typing.py",
    "unittest/case.py",
    "urllib/parse.py",
    "weakref.py",
)
CHARACTERS_PER_MODULE = 40_000
FEWEST_MODULES = 12

_DOCSTRING = re.compile(r'^[ \t]*[rRuU]?"""(.*?)"""', re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Module:
    """One module of the standard library, split into what is code and what is prose."""

    name: str
    code: str
    prose: str


def _read(path: Path, name: str) -> Module:
    source = path.read_text(encoding="utf-8", errors="replace")
    prose = "\n\n".join(inspect.cleandoc(match[1]) for match in _DOCSTRING.finditer(source))
    code = _DOCSTRING.sub("", source)
    return Module(name, code[:CHARACTERS_PER_MODULE], prose[:CHARACTERS_PER_MODULE])


@lru_cache(maxsize=1)
def modules() -> tuple[Module, ...]:
    """The modules of :data:`MODULES` that this Python has, in that order.

    Raises :class:`CorpusError` where the library's sources are missing (an embedded or zipped
    Python).
    """
    library = Path(sysconfig.get_path("stdlib"))
    found = tuple(
        _read(library / name, name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        for name in MODULES
        if (library / name).is_file()
    )
    if len(found) < FEWEST_MODULES:
        raise CorpusError(
            f"the standard library's sources are the training text, and {library} holds only "
            f"{len(found)} of them: use a Python installed with its .py files"
        )
    return found
