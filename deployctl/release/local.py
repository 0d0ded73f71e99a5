"""Hooks that run here: a process group of their own, watched, so that they end with the run.

Owns one forked worker for the hooks of one moment; what it prints comes back as log lines.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deployctl.engine.child import Line
from deployctl.engine.crew import Arrival
from deployctl.engine.worker import ForkError
from deployctl.errors import SourceError
from deployctl.host.script import Answer, Script
from deployctl.host.tap import Tap
from deployctl.inventory import Hook
from deployctl.model import Outcome, for_others
from deployctl.release.hooks import environment
from deployctl.release.loop import Loop

if TYPE_CHECKING:
    from deployctl.release.run import Run

TOLD = (Outcome.RELEASED, Outcome.ABORTED, Outcome.REVERTED, Outcome.MIXED, Outcome.INTERRUPTED)
LOOK_S = 0.1
READ_BYTES = 1 << 16


def local_hooks(
    hooks: Sequence[Hook],
    directory: Path,
    variables: Mapping[str, str],
    secrets: Sequence[str],
    timeout_s: float,
) -> Callable[[Line], None]:
    """Return the servant that runs `hooks` in `directory`, in their order, up to the first that fails."""

    def serve(line: Line) -> None:
        for hook in hooks:
            tap = Tap(
                lambda stream, text: line.send({"event": "log", "stream": stream, "text": text}), secrets
            )
            failed = run_here(
                hook.run, directory, variables, tap, hook.timeout_s or timeout_s, line.stopping.is_set
            )
            tap.end()
            if failed:
                line.send({"event": "ended", "message": f"`{tap.clean(hook.run)}` {failed}"})
                return
        line.send({"event": "ended", "message": None})
        line.receive()

    return serve


def run_here(
    command: str,
    directory: Path,
    variables: Mapping[str, str],
    tap: Tap,
    timeout_s: float,
    stopped: Callable[[], bool],
) -> str | None:
    """Run one shell command like a hook on a host; None when it went well, else how it ended."""
    script = Script.build(
        "hook",
        {"COMMAND": command, "DIR": "."},
        run="local",
        root=str(directory.resolve()),
        environment=variables,
    )
    answer = Answer(script.nonce, tap=lambda data: tap.take("stdout", data))
    errors = Answer.of_errors(script.nonce, lambda data: tap.take("stderr", data))
    process = subprocess.Popen(
        ["sh", "-s"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=for_others(os.environ),
    )
    deadline = time.monotonic() + timeout_s
    with process, selectors.DefaultSelector() as ready:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise RuntimeError("the pipes of a local hook are missing")
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(script.text.encode("utf-8", "surrogateescape"))
            process.stdin.flush()
        ready.register(process.stdout, selectors.EVENT_READ, answer.feed)
        ready.register(process.stderr, selectors.EVENT_READ, errors.feed)
        while (
            not (answer.status is not None and errors.one("end"))
            and time.monotonic() < deadline
            and not stopped()
            and ready.get_map()
        ):
            for key, _ in ready.select(LOOK_S):
                data = os.read(key.fd, READ_BYTES)
                key.data(data)
                if not data:
                    ready.unregister(key.fileobj)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # ends what is left of it
    answer.flush()
    errors.flush()
    status = answer.one("status")
    if status is None and time.monotonic() < deadline:
        return "was stopped" if stopped() else "was killed"
    if status is None:
        return f"did not end within {timeout_s:g} s and was killed"
    return None if status == "0" else f"ended with status {status}"


class LocalHooks:
    """The parent's side of one moment's local hooks."""

    def __init__(self, loop: Loop, phase: str, servant: Callable[[Line], None]) -> None:
        self._loop = loop
        self._phase = phase
        self._worker = loop.crew.hire(servant, role="hooks")
        self.ended = False
        self.failure: str | None = None

    def hear(self, arrival: Arrival) -> bool:
        """Take an arrival if it is ours."""
        if arrival.worker != self._worker:
            return False
        message = arrival.message
        if arrival.died is not None:
            if not self.ended:
                self.ended, self.failure = True, f"the worker of the hooks {arrival.died}"
        elif message.get("event") == "log":
            self._loop.events.log(None, self._phase, message["stream"], message["text"])
        elif message:
            self.ended, self.failure = True, message.get("message")
        return True

    def stop(self) -> None:
        self._loop.crew.send(self._worker, {"command": "stop"})


def build(run: Run, source: Path) -> None:
    """Run the build hooks in SOURCE; SourceError when one fails, unless a signal ended it."""
    if (said := _run_here(run, "build", source)) and not run.fleet.stopping():
        raise SourceError(said)


def tell(run: Run, outcome: Outcome) -> None:
    """Run the hooks that tell of the end; they can't change it any more."""
    if not run.hooked or outcome not in TOLD:
        return
    moment = "released" if outcome is Outcome.RELEASED else "failed"
    if said := _run_here(run, moment, run.inventory.file.resolve().parent):
        run.events.note("warning", said)


def _run_here(run: Run, moment: str, directory: Path) -> str | None:
    """Run one moment's local hooks; return how they failed, None when they went well or there are none."""
    hooks = run.inventory.release.hooks[moment]
    if not hooks:
        return None
    variables = environment(run.inventory.app, run.events.release or "", None, None)
    servant = local_hooks(hooks, directory, variables, run.secrets, run.options.timeout_s)
    try:
        local = LocalHooks(run.loop, moment, servant)
    except ForkError as error:
        return f"{moment} hook could not be started: {error.message}"
    run.fleet.listen(local.hear)
    while not local.ended:
        run.fleet.turn()
        if run.loop.signals.count and moment == "build":
            run.fleet.stop()
            local.stop()
    local.stop()
    return local.failure and f"{moment} hook {local.failure}"
