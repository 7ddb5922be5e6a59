"""What can be told of a competition before it runs: the same checks for `doctor` and for the workers' start.

Nothing is imported here: a worker that calls no models need not load what those do that call them.
"""
