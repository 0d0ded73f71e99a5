"""What pruning lets go, decided from a host's history alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from deployctl.release.prune import surplus

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
A, B, C, D, E = (f"2026111{n}T000000Z-0000000{n}" for n in range(1, 6))


def record(event: str, release: str, *, days_ago: float = 3, previous: str | None = None) -> dict[str, Any]:
    ts = (NOW - timedelta(days=days_ago)).isoformat()
    return {"event": event, "release": release, "ts": ts, "previous": previous}


FIRST = record("switch", A, days_ago=30)


def going(
    releases: list[str],
    *history: dict[str, Any],
    live: str | None,
    keep: int,
    first: dict[str, Any] | None = FIRST,
) -> list[str]:
    return surplus(releases, history, first, live=live, keep=keep, now=NOW)


def confirmed(*releases: str) -> list[dict[str, Any]]:
    return [record("confirm", release) for release in releases]


def test_the_last_activated_are_kept_not_the_newest() -> None:
    """B was rolled back to: it was activated last, and C before it."""
    assert going([A, B, C], *confirmed(A, B, C, B), live=B, keep=2) == [A]
    assert going([A, B, C, D], *confirmed(D, A, B, C), live=C, keep=3) == [D]


def test_unconfirmed_ones_count_for_nothing() -> None:
    assert going([A, B, C, D], *confirmed(A, B), live=B, keep=2) == [C, D]


def test_the_live_one_stays_unconfirmed_and_the_good_one_before_it() -> None:
    assert going([A, B, C], *confirmed(A, B), live=C, keep=1) == [A]


def test_the_one_before_a_live_one_that_was_not_activated_last() -> None:
    assert going([A, B, C, D], *confirmed(A, B, C, D), live=C, keep=1) == [A]


def test_releases_that_are_gone_take_no_place() -> None:
    assert going([A, D], *confirmed(A, B, C, D), live=D, keep=2) == []


def test_staged_ones_wait_a_week_unless_they_were_live_since() -> None:
    young, old = record("stage", C, days_ago=6.9), record("stage", D, days_ago=7.1)
    assert going([A, B, C, D], *confirmed(A, B), young, old, live=B, keep=1) == [D]
    history = [record("stage", A, days_ago=1), *confirmed(A, B, C)]
    assert going([A, B, C], *history, live=C, keep=1) == [A]
    assert going([A, B, C], *confirmed(A, B, C), record("stage", A), live=C, keep=1) == []


def test_a_stage_whose_time_cannot_be_read_waits() -> None:
    torn = {**record("stage", E), "ts": "yesterday"}
    assert going([A, B, E], *confirmed(A, B), torn, live=B, keep=1) == []


def test_a_lost_history_costs_nothing() -> None:
    assert going([A, B, C], live=C, keep=1, first=None) == []


def test_a_history_that_began_anew_spares_what_is_older() -> None:
    first = record("switch", E, previous=f"releases/{D}")
    assert going([A, B, C, D, E], *confirmed(E), live=E, keep=3, first=first) == [A, B]


def test_nothing_of_a_first_push_that_failed_stays() -> None:
    assert going([A, B], live=None, keep=5, first=None) == [A, B]
