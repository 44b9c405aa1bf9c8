"""A saved run as one HTML file: what was found, the evidence, the charts, the facts of the run."""
