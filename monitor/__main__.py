"""``python -m monitor COMMAND``: the same as ``defaultpp-monitor COMMAND``."""

import sys

from monitor.cli import main

if __name__ == "__main__":
    sys.exit(main())
