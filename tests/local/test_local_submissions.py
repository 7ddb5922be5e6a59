"""What counts as a submission, and when it is another deployment."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator_node.local.submissions import find_submissions, model_id_of, read_submission


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_folders_with_a_main_are_submissions_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("zeta", "alpha", ".hidden", "__pycache__"):
        write(tmp_path / name, main="")
    write(tmp_path / "no main", tracker="")
    (tmp_path / "main.py").write_text("")
    assert list(find_submissions(tmp_path)) == ["alpha", "zeta"]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_submissions(tmp_path / "missing")


def test_the_deployment_follows_the_code_and_nothing_that_a_running_model_writes(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", main="a = 1", tracker="")
    first = read_submission(folder)
    for name in ("state.pkl", "log.txt", "__pycache__/main.pyc", ".cache/helper.py", "env/lib/package.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("written while running")
    (folder / "env" / "pyvenv.cfg").write_text("")
    assert read_submission(folder) == first
    seen = {first.deployment_id}
    changes = [("main.py", "a = 2"), ("parts/helper.py", ""), ("requirements.txt", "x"), ("submission.json", "{}")]
    for name, text in changes:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        changed = read_submission(folder)
        assert changed.model_id == first.model_id == "model"
        assert changed.deployment_id not in seen
        seen.add(changed.deployment_id)


def test_moving_the_submissions_changes_no_deployment(tmp_path: Path) -> None:
    here, there = (write(tmp_path / place / "model", main="a = 1") for place in ("here", "there"))
    assert read_submission(here).deployment_id == read_submission(there).deployment_id


def test_infos_come_from_the_folder_unless_a_file_gives_them(tmp_path: Path) -> None:
    folder = write(tmp_path / "my model", main="")
    plain = read_submission(folder)
    assert plain.infos == {"model_name": "my model", "cruncher_id": plain.model_id, "cruncher_name": "my model"}
    described = {"model_name": "momentum", "cruncher_id": 7, "cruncher_wallet_pubkey": "Wa11et"}
    (folder / "submission.json").write_text(json.dumps(described))
    assert read_submission(folder).infos == {
        "model_name": "momentum",
        "cruncher_id": "7",
        "cruncher_name": "my model",
        "cruncher_wallet_pubkey": "Wa11et",
    }


@pytest.mark.parametrize("text", ["{", "[]", '"name"', "\udcff".encode(errors="surrogateescape")])
def test_a_broken_description_is_said_and_costs_only_the_names(tmp_path: Path, text: str | bytes) -> None:
    folder = write(tmp_path / "model", main="")
    (folder / "submission.json").write_bytes(text.encode() if isinstance(text, str) else text)
    submission = read_submission(folder)
    assert "submission.json is not" in submission.problem
    assert submission.infos["model_name"] == "model"


@given(st.text(min_size=1), st.text(min_size=1))
def test_ids_are_safe_and_differ_where_names_do(one: str, other: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model_id_of(one))
    assert (model_id_of(one) == model_id_of(other)) == (one == other)
