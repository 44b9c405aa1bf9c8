"""``python -m monitor COMMAND``: the same as ``defaultpp-monitor COMMAND``."""

from monitor.cli import entry

if __name__ == "__main__":
    entry()
