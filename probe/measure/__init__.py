"""Metric definitions, each beside the code that computes it."""
