"""Where a run is read from: a live run, one over SSH, a saved trace, or a scripted fake."""
