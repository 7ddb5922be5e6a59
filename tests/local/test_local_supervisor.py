"""The supervisor: output, restarts, draining, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_cases import RecordedOutput, gone, until, until_now
from rich.console import Console

from coordinator_node.local.backoff import Backoff
from coordinator_node.local.output import LONGEST_LINE, LineSplitter, Output
from coordinator_node.local.supervisor import CannotStartError, Program, Supervisor


def python(name: str, code: str, **options: object) -> Program:
    return Program(name, [sys.executable, "-u", "-c", code], **options)  # type: ignore[arg-type] # options of the tests


FOREVER = "import time\nprint('up', flush=True)\ntime.sleep(600)"
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOREVER


def drains(name: str) -> str:
    return (
        "import signal, sys, time\n"
        f"def end(*_):\n    time.sleep(0.1)\n    print('{name} drained', flush=True)\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n" + FOREVER
    )


def test_lines_of_several_programs_are_whole_and_named() -> None:
    # Both write their lines in pieces, at the same time.
    code = "import sys\nfor i in range(300):\n    for piece in (WORD, ' ', str(i), '\\n'): sys.stdout.write(piece)"

    async def scenario() -> RecordedOutput:
        output = RecordedOutput()
        async with Supervisor(output) as supervisor:
            for word in ("feed", "predict"):
                await supervisor.start(python(word, code.replace("WORD", repr(word)), restart=False))
            assert await supervisor.wait_for("feed", "predict") == {"feed": 0, "predict": 0}
            assert supervisor.failures == {}
        return output

    lines = asyncio.run(scenario()).lines
    for word in ("feed", "predict"):
        mine = [line.partition(" | ")[2] for line in lines if line.split()[0] == word]
        assert mine == [f"{word} {i}" for i in range(300)]
    assert len(lines) == 600


def test_errors_and_a_last_line_without_newline_are_printed_and_markup_is_not_read() -> None:
    async def scenario() -> RecordedOutput:
        output = RecordedOutput()
        async with Supervisor(output) as supervisor:
            code = (
                r"import sys; print('[red]text[/] ' + 'x' * 200, file=sys.stderr); sys.stdout.write('the \x1b[31mend')"
            )
            await supervisor.start(python("worker", code, restart=False))
            await supervisor.wait_for("worker")
        return output

    assert asyncio.run(scenario()).lines == ["worker | [red]text[/] " + "x" * 200, "worker | the end"]


def test_a_killed_program_is_started_again() -> None:
    async def scenario() -> None:
        output = RecordedOutput()
        async with Supervisor(output) as supervisor:
            first = await supervisor.start(python("worker", FOREVER))
            assert supervisor.pid("worker") == first
            os.kill(first, signal.SIGKILL)
            await until(lambda: supervisor.pid("worker") not in (None, first))
            second = supervisor.pid("worker")
            assert "worker was ended by SIGKILL; starting it again in 0.5 s" in output.text
        assert second is not None
        assert gone(first)
        assert gone(second)

    asyncio.run(scenario())


def test_a_program_between_two_starts_can_be_stopped() -> None:
    async def scenario() -> None:
        output = RecordedOutput()
        async with Supervisor(output) as supervisor:
            await supervisor.start(python("worker", "raise SystemExit(3)"))
            await until(lambda: "worker exited with code 3; starting it again" in output.text)
            assert supervisor.pid("worker") is None
            await supervisor.stop(["worker"])
            assert await supervisor.wait_for("worker") == {"worker": 3}

    asyncio.run(scenario())


def test_groups_are_drained_in_order_and_their_members_at_once() -> None:
    async def scenario() -> None:
        output = RecordedOutput()
        async with Supervisor(output) as supervisor:
            names = ("database", "feed", "predict")
            for name in names:
                await supervisor.start(python(name, drains(name)))
            await until(lambda: output.text.count("| up") == 3)
            await supervisor.stop(["predict", "feed", "never started"], ["database"])
            assert await supervisor.wait_for(*names) == dict.fromkeys(names, 0)
        drained = [line.split(" | ")[1] for line in output.lines if "drained" in line]
        assert set(drained[:2]) == {"predict drained", "feed drained"}
        assert drained[2:] == ["database drained"]

    asyncio.run(scenario())


def test_leaving_the_context_drains_the_last_started_first_even_after_an_error() -> None:
    async def scenario() -> None:
        async with Supervisor(output) as supervisor:
            for name in ("database", "feed"):
                await supervisor.start(python(name, drains(name)))
            await until(lambda: output.text.count("| up") == 2)
            raise ZeroDivisionError

    output = RecordedOutput()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(scenario())
    assert [line.split(" | ")[1] for line in output.lines[-2:]] == ["feed drained", "database drained"]


def test_one_that_does_not_end_is_killed_with_its_whole_group() -> None:
    # The grandchild inherits the output, too: its end must not be waited for.
    code = f"import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}])\nprint(child.pid)\n"

    async def scenario() -> None:
        output = RecordedOutput()
        async with Supervisor(output) as supervisor:
            pid = await supervisor.start(python("worker", code + STUBBORN, stop_seconds=0.2))
            await until(lambda: output.text.count("| up") == 2)
            grandchild = int(next(line.split(" | ")[1] for line in output.lines if line.split(" | ")[1].isdigit()))
            await supervisor.stop(["worker"])
            assert await supervisor.wait_for("worker") == {"worker": -signal.SIGKILL}
        await until(lambda: gone(pid) and gone(grandchild))

    asyncio.run(scenario())


def test_what_a_crashed_program_started_is_ended_before_it_is_started_again() -> None:
    code = f"import os, subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', {FOREVER!r}])\n"
    code += "print(child.pid, flush=True)\nos._exit(7)"

    async def scenario() -> None:
        output = RecordedOutput()
        async with Supervisor(output) as supervisor:
            await supervisor.start(python("worker", code))
            await until(lambda: "exited with code 7; starting it again" in output.text)
            grandchild = int(output.lines[0].split(" | ")[1])
            await until(lambda: gone(grandchild))

    asyncio.run(scenario())


def test_a_program_that_is_not_restarted_and_fails_is_reported() -> None:
    async def scenario() -> None:
        output = RecordedOutput()
        async with Supervisor(output) as supervisor:
            await supervisor.start(python("migrate", "raise SystemExit('the schema is unknown')", restart=False))
            assert await supervisor.wait_for("migrate") == {"migrate": 1}
            assert supervisor.failures == {"migrate": "exited with code 1"}
            await supervisor.start(python("migrate", "pass", restart=False))
            await supervisor.wait_for("migrate")
            assert supervisor.failures == {}
        assert output.lines[0] == "migrate | the schema is unknown"
        assert output.lines[1].startswith("supervisor | migrate exited with code 1")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (Program("report", ["/no/such/program"]), "/no/such/program is not an executable file"),
        (Program("report", ["no-such-program"]), "no-such-program is not an executable file, nor one on PATH"),
        (Program("report", [sys.executable], cwd=Path("/no/such/folder")), "working folder /no/such/folder does not"),
        (Program("report", [sys.executable], user="no-such-user"), "there is no user 'no-such-user'"),
    ],
)
def test_a_program_that_cannot_start_says_its_name_and_why(program: Program, reason: str) -> None:
    async def scenario() -> None:
        async with Supervisor(RecordedOutput()) as supervisor:
            with pytest.raises(CannotStartError, match=f"report cannot be started: .*{reason}"):
                await supervisor.start(program)
            assert "report" not in supervisor.programs

    asyncio.run(scenario())


def test_a_failing_preparation_is_a_failed_start_and_is_tried_again_at_a_restart() -> None:
    attempts: list[int] = []

    def prepare() -> None:
        attempts.append(len(attempts))
        if len(attempts) == 2:
            raise RuntimeError("the folder is in use")

    async def scenario() -> None:
        output = RecordedOutput()
        async with Supervisor(output) as supervisor:
            first = await supervisor.start(python("database", FOREVER, before_start=prepare))
            os.kill(first, signal.SIGKILL)
            await until(lambda: len(attempts) == 3 and supervisor.pid("database") not in (None, first))
        assert "database cannot be started: the folder is in use; trying again" in output.text

    asyncio.run(scenario())


def test_two_programs_cannot_have_one_name() -> None:
    async def scenario() -> None:
        async with Supervisor(RecordedOutput()) as supervisor:
            await supervisor.start(python("worker", FOREVER))
            with pytest.raises(ValueError, match="'worker' is running already"):
                await supervisor.start(python("worker", FOREVER))

    asyncio.run(scenario())


def test_a_program_sees_its_environment_and_folder_and_not_the_terminals_signals(tmp_path: Path) -> None:
    code = "import os\nprint(os.environ['ADDED'], 'TAKEN' in os.environ, os.getcwd(), os.getsid(0) == os.getpid())"

    async def scenario() -> RecordedOutput:
        output = RecordedOutput()
        async with Supervisor(output) as supervisor:
            environment = {"ADDED": "yes", "TAKEN": None}
            await supervisor.start(python("worker", code, restart=False, env=environment, cwd=tmp_path))
            await supervisor.wait_for("worker")
        return output

    os.environ["TAKEN"] = "from the terminal"
    try:
        assert asyncio.run(scenario()).lines == [f"worker | yes False {tmp_path} True"]
    finally:
        del os.environ["TAKEN"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children with their parent")
def test_kill_9_of_the_supervisor_leaves_nothing_running() -> None:
    script = f"""
import asyncio, sys
from coordinator_node.local.supervisor import Program, Supervisor
async def main():
    async with Supervisor() as supervisor:
        print(await supervisor.start(Program("worker", [sys.executable, "-c", {STUBBORN!r}])), flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        worker = int(supervisor.stdout.readline())
        assert supervisor.stdout.readline() == "worker | up\n"
        assert not gone(worker)
        supervisor.kill()
    until_now(lambda: gone(worker))


def test_pauses_double_to_five_seconds_and_begin_anew_after_a_calm_run() -> None:
    backoff = Backoff()
    assert [backoff.after(1) for _ in range(6)] == [0.5, 1, 2, 4, 5, 5]
    assert [backoff.after(10), backoff.after(9.9)] == [0.5, 1]


@given(st.lists(st.binary(max_size=20) | st.just(b"\n") | st.just(b"\r\n"), max_size=20))
def test_lines_do_not_depend_on_how_the_bytes_arrive(pieces: list[bytes]) -> None:
    splitter = LineSplitter()
    found = [line for piece in pieces for line in splitter.feed(piece)] + splitter.end()
    *whole, rest = b"".join(pieces).split(b"\n")
    expected = [*whole, *([rest] if rest else [])]
    assert found == [line.rstrip(b"\r").decode(errors="replace") for line in expected]


def test_a_line_without_end_is_cut() -> None:
    splitter = LineSplitter()
    lines = splitter.feed(b"x" * (2 * LONGEST_LINE + 1))
    assert [len(line) for line in lines] == [LONGEST_LINE, LONGEST_LINE]
    assert splitter.end() == ["x"]


def test_names_are_coloured_on_a_terminal_and_plain_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for terminal in (True, False):
        written = StringIO()
        output = Output(Console(file=written, force_terminal=terminal, legacy_windows=False))
        output.line("feed", "one")
        assert written.getvalue() == ("\x1b[36mfeed | \x1b[0mone\n" if terminal else "feed | one\n")
