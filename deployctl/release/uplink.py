"""The rate of the whole run: each worker that uploads gets the same share of it.

A worker sends to one host at a time, so shares change whenever an upload begins or ends, wherever that is.
"""

from __future__ import annotations

from deployctl.engine.crew import Crew
from deployctl.errors import UsageError
from deployctl.model import Phase, State

LEAST_BYTES_S = 1024  # for each worker; an upload below it counts as standing still


class Uplink:
    """Told of every change of an upload, it tells the workers their shares; without a limit it does nothing."""

    def __init__(self, crew: Crew, bytes_s: int | None) -> None:
        self._crew = crew
        self._bytes_s = bytes_s
        self._uploading: dict[str, int] = {}  # host to worker

    def hear(self, host: str, worker: int | None, phase: str | None, state: State | None) -> None:
        """Take in where a host stands; `worker` is None when it has none any more."""
        before = set(self._uploading)
        if worker is not None and phase == Phase.UPLOAD and state is State.RUNNING:
            self._uploading[host] = worker
        else:
            self._uploading.pop(host, None)
        if self._bytes_s is None or before == set(self._uploading):
            return
        share = self._bytes_s / max(1, len(self._uploading))
        for number in set(self._uploading.values()):
            self._crew.send(number, {"do": "rate", "bytes_s": share})


def check_rate(bytes_s: int | None, workers: int) -> None:
    """UsageError when the limit leaves a worker less than an upload needs to count as moving."""
    if bytes_s is not None and bytes_s < LEAST_BYTES_S * workers:
        raise UsageError(
            f"--limit-rate: {bytes_s} bytes a second are too few for {workers} workers",
            hint=f"give at least {workers}KiB, or fewer workers with --forks",
        )
