"""The tests of the client use those of the API: its rows, its application, its server."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))
