"""The five worker processes, one module each."""

import os

# Before anything imports numpy: a pool of threads in each of five processes costs more than it brings, because its
# threads spin while they wait for each other. Whoever sets the variable has the last word.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
