"""Puts each example model of the challenge into a folder of its own, as model nodes run them.

A submission is a folder with main.py (the model) and tracker.py (its base class).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

PACKAGE_IMPORT = "from starter_challenge.tracker import"
SUBMITTED_IMPORT = "from tracker import"


def main(package: Path, submissions: Path) -> None:
    """Write the folder of every example; folders that came from elsewhere are left alone."""
    for example in sorted((package / "examples").glob("[!_]*.py")):
        folder = submissions / example.stem
        folder.mkdir(parents=True, exist_ok=True)
        model = example.read_text(encoding="utf-8").replace(PACKAGE_IMPORT, SUBMITTED_IMPORT)
        (folder / "main.py").write_text(model, encoding="utf-8")
        shutil.copy(package / "tracker.py", folder / "tracker.py")
        author = {"model_name": example.stem, "cruncher_id": f"{example.stem}-author", "cruncher_name": example.stem}
        (folder / "submission.json").write_text(json.dumps(author) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
