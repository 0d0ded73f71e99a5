"""The lines that a run appends to a host's history: one JSON object each, written there before what it tells of."""

from __future__ import annotations

import getpass
import json
import os
import socket
from dataclasses import dataclass
from typing import Any

from deployctl.model import SCHEMA
from deployctl.release.events import stamp, utc_now

CI_JOB_VARIABLES = ("CI_JOB_URL", "BUILD_URL", "CIRCLE_BUILD_URL", "TRAVIS_JOB_WEB_URL")


@dataclass(frozen=True, slots=True)
class Author:
    """Who runs this, from where."""

    user: str
    machine: str
    pid: int
    ci: str | None

    @classmethod
    def here(cls, environ: dict[str, str]) -> Author:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # no such user in this container
            user = str(os.getuid())
        ci = next((environ[name] for name in CI_JOB_VARIABLES if environ.get(name)), None)
        if ci is None and environ.get("GITHUB_RUN_ID"):
            ci = f"{environ.get('GITHUB_SERVER_URL', '')}/{environ.get('GITHUB_REPOSITORY', '')}/actions/runs/{environ['GITHUB_RUN_ID']}"
        return cls(user, socket.gethostname(), os.getpid(), ci)


def record(event: str, run: str, release: str, author: Author, **more: Any) -> str:
    """Return one history line: `event` is switch, revert or confirm."""
    return json.dumps(
        {
            "schema": SCHEMA,
            "event": event,
            "run": run,
            "release": release,
            "ts": stamp(utc_now()),
            "user": author.user,
            "machine": author.machine,
            "pid": author.pid,
            **({"ci": author.ci} if author.ci else {}),
            **{key: value for key, value in more.items() if value is not None},
        },
        ensure_ascii=True,
    )
