"""One module per command: ``HELP``, ``configure`` its options, ``run`` it."""
