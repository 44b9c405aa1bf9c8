"""The probe: measures a transformer from inside its training process, as a guest."""
