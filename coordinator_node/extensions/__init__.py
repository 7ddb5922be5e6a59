"""Default callables, emission strategies, and the resolver of dotted paths."""
