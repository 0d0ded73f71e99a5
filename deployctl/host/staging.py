"""From a plan to a verified release on one host: the cheapest way that is there, the upload when it fails."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from deployctl.engine.child import Message
from deployctl.errors import Code, HostError
from deployctl.host.growth import Growth
from deployctl.host.layout import early_name, part_path
from deployctl.host.operation import Operation
from deployctl.host.parts import Delivery, read_parts
from deployctl.host.plan import Action, Plan, check_space
from deployctl.host.session import Session
from deployctl.host.upload import upload
from deployctl.model import Phase


def stage(session: Session, plan: Plan, operation: Operation) -> dict[str, Any]:
    """Put the release on the host, verified; return `{"bytes": sent}`. HostError, Cancelled.

    With `{"again": why}` in addition, what was there is not what it claims to be: the run goes on with another way.
    """
    delivery = _go_on(session, plan, operation)
    if delivery is None:
        operation.begin(Phase.UPLOAD)
        if session.lock is None:  # taking it prepares as well
            session.run(operation, "prepare")
        if plan.parts > 1:
            delivery = deliver(session, plan, operation)
    if delivery is not None:
        sent_bytes = delivery.sent_bytes
    else:
        sent_bytes = _send(session, plan, operation) if plan.path else 0
    told = {"action": plan.action, **({"base": plan.base} if plan.base else {})}
    patched = {"patched": plan.patched} if plan.patched else {}
    operation.ok(bytes=sent_bytes, files=plan.files, **patched, **told)
    operation.begin(Phase.STAGE)
    try:
        _build(session, plan, operation, delivery)
    except HostError as error:
        if error.code is not Code.DIGEST or plan.action is Action.UPLOAD:
            raise
        return {"bytes": sent_bytes, "again": error.message}
    operation.ok(**told)
    return {"bytes": sent_bytes}


def _build(session: Session, plan: Plan, operation: Operation, delivery: Delivery | None) -> None:
    began_at = time.monotonic()
    unpacked = delivery is not None and delivery.finish()
    if plan.action is not Action.REUSE:
        values = {**plan.values(), "UNPACKED": "1" if unpacked else ""}
        if session.facts is not None and session.facts.whole and session.facts.base == plan.base:
            values["WHOLE"] = "1"
        left_s = operation.timeout_s - (time.monotonic() - began_at)
        session.run(operation, "stage", values, timeout_s=max(1.0, left_s))
        return
    try:
        session.run(operation, "reverify", plan.values())
    except HostError as error:
        if error.code is Code.DIGEST:
            session.run(operation, "discard", {"ID": plan.release})
        raise


def deliver(session: Session, plan: Plan, operation: Operation) -> Delivery:
    """Bring all parts there, over more than one connection if need be; HostError, Cancelled."""
    if session.facts is not None:
        joins = session.connection(operation.timeout_s).is_far or bool(session.facts.parts)
        check_space(session.facts, plan, session.root, joins=joins)
    growth = Growth(read_parts(Path(plan.path)), whole=True)
    return _perform(session, Delivery(session, operation, plan.values(), Path(plan.path), growth), operation)


def early(session: Session, command: Message, operation: Operation) -> dict[str, Any]:
    """Bring parts there while they are packed, to the last one; `stage` goes on from there. HostError, Cancelled."""
    operation.begin(Phase.UPLOAD)
    assert session.growth is not None  # set before this began  # noqa: S101
    # Modes are not known yet: all directories are looked at.
    values = {"FROM": Action.UPLOAD, "ARTIFACT": early_name(session.site.run), "MODES": "d:0"}
    delivery = Delivery(session, operation, values, Path(command["path"]), session.growth)
    try:
        session.delivery = _perform(session, delivery, operation)
    finally:
        session.growth = None
    return {"bytes": delivery.sent_bytes}


def _go_on(session: Session, plan: Plan, operation: Operation) -> Delivery | None:
    """Return what was begun before there was a plan, if this is what is planned."""
    delivery = session.delivery
    if not isinstance(delivery, Delivery) or plan.action is not Action.UPLOAD:
        session.end_early()
        return None
    session.delivery = None
    operation.begin(Phase.UPLOAD, quiet=True, began_at=delivery.began_at)
    delivery.go_on(operation)
    return delivery


def _perform(session: Session, delivery: Delivery, operation: Operation) -> Delivery:
    try:
        delivery.perform()
    except HostError as error:
        delivery.stop()
        if "scp" in error.data:
            session.run(operation, "blame", {"WHY": error.message})
        raise
    except BaseException:
        delivery.stop()
        raise
    return delivery


def _send(session: Session, plan: Plan, operation: Operation) -> int:
    if session.facts is not None:
        check_space(session.facts, plan, session.root)
    target = part_path(session.root, session.site.run)
    try:
        return upload(
            session.connection(operation.timeout_s),
            Path(plan.path),
            target,
            stall_s=operation.timeout_s,
            cancel=operation.cancel,
            progress=lambda done: operation.bytes(done, plan.size_bytes),
            throttle=session.throttle,
        )
    except HostError as error:
        if "scp" not in error.data:
            raise
        # scp failed with words only; the host is asked for the reason in terms of space and rights.
        session.run(operation, "blame", {"WHY": error.message})
        raise
