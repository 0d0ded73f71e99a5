"""The events of one run: every JSON object a run says is made here, with the keys that all have."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from deployctl.errors import Code
from deployctl.model import SCHEMA, Phase, State

PROGRESS_EVERY_S = 0.5

Event = dict[str, Any]


class Observer(Protocol):
    """Whoever shows a run: told every event, and called between them to refresh a display."""

    def event(self, event: Mapping[str, Any]) -> None: ...

    def note(self, level: str, text: str) -> None: ...

    def tick(self) -> None: ...


class Silent:
    """Shows nothing: for callers of the library."""

    def event(self, event: Mapping[str, Any]) -> None: ...

    def note(self, level: str, text: str) -> None: ...

    def tick(self) -> None: ...


def utc_now() -> datetime:
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """Return an RFC 3339 time in UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Events:
    """Says what happens in one run; `release` is null until it is chosen."""

    def __init__(self, observer: Observer, run: str, *, now: Callable[[], datetime] = utc_now) -> None:
        self._observer = observer
        self._now = now
        self._began_at = time.monotonic()
        self._progress_at = 0.0
        self.run = run
        self.release: str | None = None

    @property
    def elapsed_s(self) -> float:
        return round(time.monotonic() - self._began_at, 3)

    def _say(self, event: str, **keys: Any) -> None:
        self._observer.event(
            {
                "schema": SCHEMA,
                "event": event,
                "run": self.run,
                "release": self.release,
                **keys,
                "ts": stamp(self._now()),
            }
        )

    def note(self, level: str, text: str) -> None:
        self._observer.note(level, text)

    def tick(self) -> None:
        self._observer.tick()

    def started(self, command: str, *, app: str, hosts: Sequence[str], forks: int, **keys: Any) -> None:
        self._say("run_started", command=command, app=app, hosts=list(hosts), forks=forks, **keys)

    def host(
        self,
        host: str,
        phase: Phase | str,
        state: State,
        *,
        code: Code = Code.OK,
        message: str = "success",
        elapsed_s: float = 0.0,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self._say(
            "host",
            host=host,
            phase=str(phase),
            state=str(state),
            code=int(code),
            message=message,
            data=dict(data or {}),
            elapsed_s=elapsed_s,
        )

    def log(self, host: str | None, phase: str, stream: str, text: str) -> None:
        """Say one line that a hook printed; `host` is None for a hook that runs here."""
        self._say("log", host=host, phase=str(phase), stream=stream, text=text)

    def progress_due(self, *, last: bool = False) -> bool:
        """Whether it is time to say how far the run is: twice a second at most, and the `last` of a phase always."""
        return time.monotonic() - self._progress_at >= PROGRESS_EVERY_S or (last and self._progress_at > 0)

    def progress(self, **keys: Any) -> None:
        """Say how far the run is."""
        self._progress_at = time.monotonic()
        self._say("progress", **keys)

    def finished(self, **keys: Any) -> None:
        """Say the last word; `skew_s` is null where nothing was switched."""
        self._say("run_finished", **{"skew_s": None, **keys}, elapsed_s=self.elapsed_s)
