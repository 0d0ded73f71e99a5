"""Asks a URL from here, as a check does it."""

from __future__ import annotations

import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from deployctl.host.script import printable
from deployctl.host.verdict import follows, judge

BODY_BYTES = 1 << 20  # of a response that is looked through for a text


def ask_url(each: Mapping[str, Any], limit_s: float) -> str | None:
    """Ask a URL from here; None when status and text are as expected, else what was wrong.

    The request has a thread of its own: a name server or a server that sends a byte now and then must not hold us up.
    """
    said: list[str | None] = []
    thread = threading.Thread(target=lambda: said.append(_request(each, limit_s)), daemon=True)
    thread.start()
    thread.join(limit_s)
    return said[0] if said else f"no answer within {limit_s:g} s"


class _Stay(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for the answer."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _request(each: Mapping[str, Any], limit_s: float) -> str | None:
    opener = urllib.request.build_opener(*([] if follows(each) else [_Stay]))
    try:
        with opener.open(each["url"], timeout=limit_s) as response:
            return judge(response.status, each, _holds(response.read(BODY_BYTES), each["text"]))
    except urllib.error.HTTPError as error:
        with error:
            return judge(error.code, each, _holds(error.read(BODY_BYTES), each["text"]))
    except (OSError, ValueError, http.client.HTTPException) as error:
        return printable(str(getattr(error, "reason", error))) or type(error).__name__


def _holds(body: bytes, text: str | None) -> bool:
    return text is None or text.encode() in body
