"""The diagnosis: taxonomy, fault propagation graph, features, model, engine, faults, corpus."""
