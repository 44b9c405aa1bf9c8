"""``python -m probe [OPTIONS] train.py …``: runs a script as it is, watched."""

from probe.script import main

if __name__ == "__main__":
    main()
