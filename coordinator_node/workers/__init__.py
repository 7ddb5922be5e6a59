"""The five worker processes, one module each."""
