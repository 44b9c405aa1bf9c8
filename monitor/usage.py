"""Wrong use of the command line that the parser cannot see."""


class UsageError(Exception):
    """The message says what to type instead."""
