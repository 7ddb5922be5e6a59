"""Python environments for submissions that bring a requirements.txt, made with uv and kept.

An environment holds what the submission asks for. What the model host itself needs (gRPC, `model_runner_client`,
pandas, pyarrow) is found in the engine's environment, behind everything that the submission has installed, so that
installing costs only what is new and a submission's versions win over the engine's.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import shutil
import sys
import sysconfig
from pathlib import Path

from coordinator_node.local.output import Output
from coordinator_node.local.process import ChildProcess, Program, describe_exit
from coordinator_node.local.submissions import Submission, digest_of

HOST_NEEDS = ("grpc", "grpc_health", "google.protobuf", "model_runner_client", "pandas", "pyarrow")
STAMP = "complete"
# Set for the environment that the engine was started from, these would bind uv to it as well.
FOREIGN = {"VIRTUAL_ENV": None, "PYTHONPATH": None, "PYTHONHOME": None, "UV_PROJECT_ENVIRONMENT": None}


class EnvironmentFailedError(RuntimeError):
    """A submission's environment cannot be made; the message says which step failed."""


class Environments:
    """The environments below a cache folder, one for each set of requirements."""

    def __init__(self, cache: Path, output: Output) -> None:
        self._cache = cache.resolve()
        self._output = output
        self._making: dict[Path, asyncio.Lock] = {}

    async def python_for(self, submission: Submission) -> Path:
        """The interpreter to run the submission with; its environment is made first if it is not there.

        Without requirements it is the engine's own.

        Raises:
            EnvironmentFailedError: uv is missing, or could not install the requirements.
        """
        requirements = submission.requirements
        if requirements is None:
            return Path(sys.executable)
        environment = self._cache / _key(submission, requirements)
        async with self._making.setdefault(environment, asyncio.Lock()):
            if not (environment / STAMP).exists():
                await self._make(environment, requirements, submission)
        return environment / "bin" / "python"

    async def _make(self, environment: Path, requirements: Path, submission: Submission) -> None:
        uv = find_uv()
        self._output.line(submission.name, f"installing {requirements}")
        environment.parent.mkdir(parents=True, exist_ok=True)
        python = environment / "bin" / "python"
        for arguments in (
            ["venv", "--quiet", "--no-project", "--clear", "--python", sys.executable, str(environment)],
            [
                "pip",
                "install",
                "--quiet",
                "--compile-bytecode",
                "--python",
                str(python),
                "--requirement",
                str(requirements),
            ],
        ):
            program = Program(
                name=submission.name,
                argv=[uv, *arguments],
                env=FOREIGN,
                cwd=submission.folder,
            )
            code = await _run(program, self._output)
            if code:
                raise EnvironmentFailedError(
                    f"{requirements} could not be installed: uv {arguments[0]} {describe_exit(code)}, its lines above "
                    "say why. It is tried again when the submission changes"
                )
        _show_engine_libraries(environment)
        (environment / STAMP).touch()


def find_uv() -> str:
    """The path of uv: the one beside this interpreter, else one on PATH.

    Raises:
        EnvironmentFailedError: there is none.
    """
    found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if found is None:
        raise EnvironmentFailedError(
            "a submission's requirements.txt needs uv, which is not installed: "
            "run pip install 'coordinator-node[local]'"
        )
    return found


async def _run(program: Program, output: Output) -> int:
    child = await ChildProcess.start(program, output)
    try:
        return await child.wait()
    finally:  # also when cancelled, as by the removal of the submission
        child.kill()
        await child.wait()


def _key(submission: Submission, requirements: Path) -> str:
    """A name that changes with all that decides what the environment holds."""
    text = requirements.read_text(errors="replace")
    digest = hashlib.sha256("\0".join([text, sys.version, sys.prefix, *_engine_libraries()]).encode())
    if any(line.strip().startswith((".", "/", "-")) or "file:" in line for line in text.splitlines()):
        # It names files, whose contents count, and which relative to another folder would be other files.
        digest.update(f"{submission.folder}\0{digest_of(submission.folder)}".encode())
    return digest.hexdigest()[:16]


def _show_engine_libraries(environment: Path) -> None:
    """Put the engine's libraries last on the environment's import path."""
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))
    packages.joinpath("engine_libraries.pth").write_text("\n".join(_engine_libraries()) + "\n")


def _engine_libraries() -> list[str]:
    """The folders that hold what the model host imports."""
    folders = {}
    for name in HOST_NEEDS:
        spec = importlib.util.find_spec(name)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            folders[str(Path(location).parents[name.count(".")])] = True
    return list(folders)
