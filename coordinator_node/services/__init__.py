"""One module a stage of the competition."""
