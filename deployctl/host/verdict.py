"""What is expected of an answer to a check's request, whoever asked; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def follows(each: Mapping[str, Any]) -> bool:
    """Whether redirects are followed: not when one is expected."""
    return int(each["expect"]) // 100 != 3


def judge(status: int, each: Mapping[str, Any], found: bool) -> str | None:
    if status != each["expect"]:
        return f"status {status}, not {each['expect']}"
    if each["text"] and not found:
        return f"the answer does not hold {each['text']!r}"
    return None
