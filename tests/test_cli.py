"""The command line's shell: what people and scripts see before, around and instead of a run."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import pkgutil
import pty
import select
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import click
import pytest

import deployctl
import deployctl.cli
from deployctl.cli.main import COMMANDS, cli, run
from deployctl.cli.perform import Heard
from deployctl.cli.rolling import TerminalQuestion
from deployctl.output.reporter import make_reporter
from tests.support.proc import wait_until

PROGRAM = (sys.executable, "-m", "deployctl")
SHELL_OF_CLI = {"main", "options", "perform", "rolling"}  # modules of the room that are no commands
HEAVY = (
    "paramiko",
    "rich",
    "pydantic",
    "yaml",
    "zstandard",
    "ClusterShell",
    "cryptography",
    "multiprocessing",
)
COMMON = {
    "--inventory", "--limit", "--forks", "--output", "--verbose", "--quiet", "--timeout", "--wait-lock", "--ask-pass",
    "--yes", "--debug", "--help",
}  # fmt: skip
OF_COMMAND = {
    "push": COMMON
    | {
        "--ref", "--dry-run", "--no-activate", "--max-failures", "--batch", "--batch-wait", "--confirm", "--limit-rate",
        "--force", "--allow-empty", "--message", "--report", "--junit",
    },
    "rollback": COMMON | {"--batch", "--batch-wait", "--confirm", "--force", "--message"},
    "activate": COMMON | {"--batch", "--batch-wait", "--confirm", "--message"},
    "status": COMMON,
    "releases": COMMON,
    "verify": COMMON,
    "prune": COMMON,
    "unlock": COMMON,
    "check": COMMON,
    "run": COMMON | {"--gather"},
    "copy": COMMON,
    "history": COMMON | {"--local", "--last"},
    "inventory": {"--inventory", "--limit", "--output", "--debug", "--help"},
    "demo": COMMON | {"--hosts", "--keep"},
    "completion": {"--help"},
}  # fmt: skip
INVENTORY = "app: shop\npath: /srv/shop\ngroups:\n  web:\n    hosts: [web01]\n"
WRONG = "app: Shop!\npath: srv\ncolour: red\ngroups:\n  web:\n    hosts: [web01, web01]\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an inventory and something to push, which we are in; the terminal is 80 columns wide."""
    (tmp_path / "hosts.yaml").write_text(INVENTORY)
    (tmp_path / "build").mkdir()
    (tmp_path / "build/file").write_text("x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def program(
    *arguments: str, stdout: Any = subprocess.PIPE, **options: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
        **options,
    )


def last_line(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    return found


# ---- help and usage


def test_every_command_is_listed_and_every_listed_one_exists() -> None:
    modules = {module.name for module in pkgutil.iter_modules(deployctl.cli.__path__)}
    assert modules - SHELL_OF_CLI == set(COMMANDS)
    context = click.Context(cli)
    assert cli.list_commands(context) == list(COMMANDS)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr() == (f"deployctl, version {deployctl.__version__}\n", "")
    for option in ("--help", "-h"):
        assert run([option]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        for name, text in COMMANDS.items():
            assert f"  {name} " in out
            assert text.split()[0] in out


def test_without_a_command_the_help_is_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: deployctl ")
    assert "push" in err


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_names_its_options_and_fits_80_columns(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([name, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = [
        param for param in command.get_params(click.Context(command)) if isinstance(param, click.Option)
    ]
    named = {opt for option in options for opt in option.opts if opt.startswith("--")}
    assert named <= OF_COMMAND[name], "the contract has no such option"
    for option in options:
        assert option.help, option.name
        for opt in option.opts:
            assert opt in out


def test_commands_that_talk_to_hosts_share_their_options() -> None:
    for name in COMMANDS.keys() - {"inventory", "demo", "completion"}:
        command = importlib.import_module(f"deployctl.cli.{name}").command
        opts = {opt for param in command.params for opt in param.opts}
        assert opts >= COMMON - {"--help"}
        assert opts >= {"-i", "-l", "-f", "-o", "-v", "-q", "-y"}


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["psuh", "x"], "no such command: psuh; did you mean push?", "deployctl --help"),
        (["frobnicate"], "no such command: frobnicate", "deployctl --help"),
        (["--nope"], "No such option '--nope'.", "deployctl --help"),
        (["push"], "Missing argument 'SOURCE'.", "deployctl push --help"),
        (["push", "a", "b"], "Got unexpected extra argument (b)", "deployctl push --help"),
        (["push", "a", "--forcee"], "No such option '--forcee'. ", "deployctl push --help"),
        (["push", "a", "-o", "xml"], "Invalid value for '-o' / '--output': 'xml' is not one of", "deployctl push --help"),
        (["push", "a", "--timeout", "soon"], "Invalid value for '--timeout': 'soon' is no", "deployctl push --help"),
        (["push", "a", "--timeout", "0"], "Invalid value for '--timeout': '0' is no time", "deployctl push --help"),
        (["push", "a", "--timeout", "-1"], "Invalid value for '--timeout': '-1' is no", "deployctl push --help"),
        (["push", "a", "--forks", "0"], "Invalid value for '-f' / '--forks': 0 is not", "deployctl push --help"),
        (["push", "a", "--forks", "x"], "Invalid value for '-f' / '--forks': 'x' is not", "deployctl push --help"),
        (["completion", "tcsh"], "Invalid value for '{bash|zsh|fish}': 'tcsh'", "deployctl completion --help"),
    ],
)  # fmt: skip
def test_wrong_usage_is_exit_2_with_a_hint(
    arguments: list[str], error: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, *_, last = err.splitlines()
    assert first.startswith(f"deployctl: error: {error}".split("{", maxsplit=1)[0])
    assert last == f"deployctl: hint: {hint}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-failures", "many"], "--max-failures"),
        (["--limit", "db99"], "db99"),
        (["-l", "!web01"], "web01"),
    ],
)
def test_what_is_wrong_only_beside_the_inventory_is_exit_2_too(
    options: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["push", "build", "-o", "json", *options]) == 2
    out, err = capsys.readouterr()
    end = last_line(out)
    assert (end["event"], end["outcome"], end["exit_code"]) == ("run_finished", "failed", 2)
    assert said in err
    assert err.startswith("deployctl: error: ")


def test_yes_is_taken(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["push", "build", "-y", "--yes", "--limit", "db99"]) == 2
    assert "no such option" not in capsys.readouterr().err.lower()


# ---- the inventory


def test_a_missing_inventory_is_exit_10(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["push", "build", "-i", "nowhere.yaml", "-o", "json"]) == 10
    out, err = capsys.readouterr()
    end = last_line(out)
    assert (end["event"], end["outcome"], end["exit_code"]) == ("run_finished", "refused", 10)
    assert end["hosts"] == {}
    error, hint = err.splitlines()
    assert error.startswith("deployctl: error: nowhere.yaml: no such file")
    assert hint.startswith("deployctl: hint: ")


@pytest.mark.parametrize(
    "command", [["push", "build"], ["activate", "x"], ["inventory"]], ids=lambda words: words[0]
)
@pytest.mark.parametrize("mode", ["plain", "json"])
def test_every_problem_of_an_inventory_is_told(
    command: list[str], mode: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("hosts.yaml").write_text(WRONG)
    assert run([*command, "-o", mode]) == 10
    out, err = capsys.readouterr()
    problems = [line for line in err.splitlines() if line.startswith("deployctl: error: ")]
    assert [line.split(" ")[2] for line in problems] == [
        "hosts.yaml:1:6:", "hosts.yaml:2:7:", "hosts.yaml:3:1:", "hosts.yaml:6:20:",
    ]  # fmt: skip
    if mode == "json":
        assert last_line(out)["outcome"] == "refused"


# ---- signals, readers that leave, defects


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_before_the_run_begins_still_ends_in_run_finished(
    number: int, code: int, here: Path
) -> None:
    env = with_load_inventory(here, "open('waits', 'w').close()\n    import time\n    time.sleep(60)")
    with subprocess.Popen(
        [*PROGRAM, "push", "build", "-o", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as running:
        wait_until(Path("waits").exists, 30)
        running.send_signal(number)
        out, err = running.communicate(timeout=20)
    assert running.returncode == code, err
    end = last_line(out.decode())
    assert (end["event"], end["outcome"], end["exit_code"]) == ("run_finished", "interrupted", code)
    assert b"Traceback" not in err


def with_load_inventory(directory: Path, body: str) -> dict[str, str]:
    """The environment of a program in which reading an inventory is `body`."""
    (directory / "site").mkdir()
    (directory / "site/sitecustomize.py").write_text(
        "import deployctl.cli.inventory, deployctl.inventory.load\n"
        f"def load_inventory(*_):\n    {body}\n"
        "deployctl.inventory.load.load_inventory = deployctl.cli.inventory.load_inventory = load_inventory\n"
    )
    return {**os.environ, "PYTHONPATH": str(directory / "site")}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["inventory"], ["inventory", "schema"]])
def test_a_reader_that_leaves_is_no_error(arguments: list[str], here: Path) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    with os.fdopen(writable, "wb") as nobody:
        done = program(*arguments, stdout=nobody)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_under_the_output_is_told(here: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = program("inventory", stdout=full)
    assert done.returncode == 1
    assert done.stderr == "deployctl: error: No space left on device\n"


@pytest.fixture
def defect(here: Path) -> dict[str, str]:
    return with_load_inventory(here, "raise LookupError('injected')")


@pytest.mark.parametrize("mode", ["plain", "json"])
@pytest.mark.parametrize("debug", [False, True])
def test_a_defect_is_told_and_its_traceback_with_debug_alone(
    mode: str, debug: bool, defect: dict[str, str]
) -> None:
    done = program("push", "build", "-o", mode, "-q", *(["--debug"] if debug else []), env=defect)
    assert done.returncode == 1
    assert "deployctl: error: LookupError: injected\n" in done.stderr
    assert "deployctl: hint: this is a defect of deployctl" in done.stderr
    assert ("Traceback" in done.stderr) is debug
    assert ("load_inventory" in done.stderr) is debug
    if mode == "json":
        end = last_line(done.stdout)
        assert (end["event"], end["outcome"], end["exit_code"]) == ("run_finished", "failed", 1)
        assert "Traceback" not in done.stdout


def test_a_defect_outside_of_a_run_is_told_in_the_same_way(defect: dict[str, str]) -> None:
    done = program("inventory", env=defect)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "deployctl: error: LookupError: injected\ndeployctl: hint: this is a defect"
    )
    done = program("inventory", "--debug", env=defect)  # as the hint asks
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_what_is_shown_of_an_error_cannot_steer_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["\x1b[2Jpush"]) == 2
    assert "\x1b" not in capfd.readouterr().err


def test_help_imports_nothing_that_is_heavy() -> None:
    code = (
        "import sys\nfrom deployctl.cli.main import run\nassert run(['--help']) == 0\n"
        f"sys.exit(', '.join(name for name in {HEAVY} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_a_push_imports_nothing_that_only_an_ssh_config_may_need() -> None:
    program = (
        "import sys, deployctl.cli.push; early = 'invoke.tasks' in sys.modules; import invoke; "
        "sys.exit(early or not callable(invoke.run) or 'invoke.tasks' not in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_public_names_are_loaded_when_asked_for() -> None:
    for name in deployctl.__all__:
        assert getattr(deployctl, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        deployctl.nothing  # noqa: B018


# ---- what is asked on a terminal


def test_the_end_of_input_at_a_prompt_is_wrong_usage(here: Path) -> None:
    ours, theirs = pty.openpty()
    said = b""
    with subprocess.Popen(
        [*PROGRAM, "check", "--ask-pass", "-o", "json"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
        cwd=here,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads in tests
    ) as process:
        os.close(theirs)
        while not said.endswith(b": "):
            assert select.select([ours], [], [], 30)[0], said
            said += os.read(ours, 1000)
        os.write(ours, b"\x04")
        assert process.stdout
        end = last_line(process.stdout.read().decode())
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            while data := os.read(ours, 1000):
                said += data
    os.close(ours)
    assert process.returncode == 2
    assert (end["outcome"], end["message"]) == ("failed", "nothing was given at the prompt")
    assert b": \r\ndeployctl: error: nothing was given at the prompt" in said


def test_a_terminal_that_is_gone_answers_no() -> None:
    ours, theirs = pty.openpty()
    heard = Heard(make_reporter("json", verbosity=0, stdout=None, stderr=None, environ={}), debug=False)
    question = TerminalQuestion(theirs, heard)
    try:
        question.put("go on?")
        assert question.take() is None
        os.write(ours, b"y\n")
        assert select.select([theirs], [], [], 5)[0]
        assert question.take() is True
        os.close(ours)
        question.put("go on?")
        assert question.take() is False
    finally:
        os.close(theirs)


# ---- what click refuses, for programs


@pytest.mark.parametrize(
    ("words", "command", "said"),
    [
        (["push", "-o", "json"], "push", "SOURCE"),
        (["push", ".", "--bach", "1", "--output=json"], "push", "--bach"),
        (["push", ".", "--timeout", "soon", "-qojson"], "push", "soon"),
        (["status", "extra", "--output", "json"], "status", "(extra)"),
        (["psuh", ".", "-o", "json"], "deployctl", "did you mean push?"),
    ],
)
def test_a_refused_call_has_a_last_line(words: list[str], command: str, said: str) -> None:
    done = program(*words)
    assert done.returncode == 2
    [line] = done.stdout.splitlines()
    told = json.loads(line)
    assert (told["event"], told["outcome"], told["exit_code"]) == ("run_finished", "failed", 2)
    assert (told["command"], told["hosts"], told["skew_s"]) == (command, {}, None)
    assert said in told["message"]
    assert told["hint"].endswith("--help")
    assert done.stderr.count(said) == 1
    assert done.stderr.startswith("deployctl: error: ")


def test_a_copy_of_a_closed_standard_input_has_a_last_line(here: Path) -> None:
    done = program("copy", "-", "x", "-o", "json", cwd=here, preexec_fn=lambda: os.close(0))
    assert done.returncode == 2, done.stderr
    told = last_line(done.stdout)
    assert (told["event"], told["command"], told["exit_code"]) == ("run_finished", "copy", 2)
    assert "standard input is closed" in told["message"]


def test_a_demo_without_its_tools_has_a_last_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("deployctl.cli.demo.missing_tools", lambda: ["scp"])
    assert run(["demo", "-o", "json"]) == 2
    out, err = capsys.readouterr()
    assert last_line(out)["message"] == "this machine lacks scp"
    assert err.startswith("deployctl: error: this machine lacks scp\n")


@pytest.mark.parametrize("words", [["push"], ["push", "-o", "plain"], ["push", "-o", "json", "-o", "plain"]])
def test_a_refused_call_prints_nothing_on_standard_output_for_people(words: list[str]) -> None:
    done = program(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Missing argument" in done.stderr
