"""The terminal monitor: sources, run model, widgets, command line."""
