"""The kinds of text an inventory holds, each with its check and its part of the JSON Schema.

Owns what one value must look like; refuses to know where it stands. Every check raises ValueError with words for people.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, StrictStr, WithJsonSchema

from deployctl.inventory import ranges
from deployctl.inventory.problems import did_you_mean, quoted
from deployctl.inventory.units import duration_s

_APP = r"[a-z0-9][a-z0-9-]*"
_GROUP = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_HOST = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_USER = r"[A-Za-z0-9_.][A-Za-z0-9._-]*"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_FINGERPRINT = r"SHA256:[A-Za-z0-9+/]{43}"
_DURATION = r"[0-9]+(\.[0-9]+)? ?(ms|s|m|h)?"
_HOP = re.compile(
    rf"(?:(?P<user>{_USER})@)?(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>{_HOST}))(?::(?P<port>[0-9]+))?"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029]")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}|[{}]")
_URL = re.compile(r"https?://[^/?#\s@]+(?:[/?#]\S*)?", re.IGNORECASE)

PATH_PLACEHOLDERS = ("{host}", "{app}")
URL_PLACEHOLDERS = ("{host}", "{address}", "{app}", "{release}")


def app(text: str) -> str:
    if not re.fullmatch(_APP, text):
        raise ValueError(
            f"{quoted(text)} is not a name of an app: use a-z, 0-9 and -, and begin with a letter or digit"
        )
    return text


def group_name(text: str) -> str:
    if text == "all" or not re.fullmatch(_GROUP, text):
        why = "means every host" if text == "all" else "use letters, digits, '.', '_' and '-', not '-' first"
        raise ValueError(f"{quoted(text)} can't name a group: {why}")
    return text


def host_pattern(text: str) -> str:
    """A host name, or a range of them; an IPv6 address loses its brackets."""
    if not ranges.is_range(text):
        return host(text)
    sample = re.sub(r"\[[^\[\]]*\]", "0", text)
    total = ranges.count(text)
    if total > ranges.MAX_HOSTS:
        raise ValueError(f"{quoted(text)} is {total:,} hosts; at most {ranges.MAX_HOSTS:,} are possible")
    try:
        host(sample)
    except ValueError:
        raise ValueError(f"{quoted(text)} {_HOST_WORDS}") from None
    return text


_HOST_WORDS = "is not a host: use letters, digits, '.', '_', '-' (not first), or an IPv6 address"


def host(text: str) -> str:
    """A host name or address by its allow-list; what an ssh command line would take as more gets a hint."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare:
        return _ipv6(text, bare)
    if bare == text and re.fullmatch(_HOST, text):
        return text
    if "@" in text and not text.startswith("@"):
        raise ValueError(f"{quoted(text)} is not a host; write the login as 'user'")
    if text.startswith("@"):
        raise ValueError(f"{quoted(text)} is not a host; groups can't hold groups")
    raise ValueError(f"{quoted(text)} {_HOST_WORDS}")


def _ipv6(text: str, bare: str) -> str:
    try:
        ipaddress.IPv6Address(bare)
    except ValueError:
        if re.fullmatch(rf"(?:{_HOST}|\[[0-9a-fA-F:.]+\]):[0-9]+", text):
            name, _, port = text.rpartition(":")
            raise ValueError(
                f"{quoted(text)} is not a host; write the port apart: {{name: {name}, port: {port}}}"
            ) from None
        raise ValueError(f"{quoted(text)} {_HOST_WORDS}") from None
    if "%" in bare:
        raise ValueError(f"{quoted(text)}: an address with a zone is not possible")
    return bare


def user(text: str) -> str:
    if not re.fullmatch(_USER, text):
        raise ValueError(f"{quoted(text)} is not a user: use letters, digits, '.', '_' and '-' (not first)")
    return text


def jump(text: str) -> str:
    """`[user@]host[:port]`, several joined by commas, an IPv6 address in brackets; spaces round commas go."""
    hops = [hop.strip(" ") for hop in text.split(",")]
    for hop in hops:
        match = _HOP.fullmatch(hop)
        if match is None:
            raise ValueError(f"{quoted(hop)} is not a jump host; write it like ops@bastion.example.com:22")
        if match["v6"]:
            host(match["v6"])
        if match["port"]:
            port(int(match["port"][:9]))
    return ",".join(hops)


def port(number: int) -> int:
    if not 1 <= number <= 65535:
        raise ValueError("is not a port; ports go from 1 to 65535")
    return number


def fingerprint(text: str) -> str:
    if not re.fullmatch(_FINGERPRINT, text):
        kind = "MD5 is not enough; " if text.upper().startswith("MD5:") else ""
        raise ValueError(f"{kind}write SHA256: and 43 characters, as 'ssh-keygen -lf KEY.pub' prints it")
    return text


def no_control(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    if _CONTROL.search(text):
        raise ValueError("holds a control character or a line break")
    return text


def filled(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


def placeholders(text: str, known: Iterable[str]) -> None:
    """ValueError for anything in braces that is not one of the known placeholders."""
    choices = tuple(known)
    for found in _PLACEHOLDER.findall(text):
        if found not in choices:
            hint = did_you_mean(found, choices)
            raise ValueError(f"unknown placeholder {quoted(found)}{hint}; known are {', '.join(choices)}")


def deploy_path(text: str) -> str:
    """An absolute path below `/` without `..`; comes back without doubled or trailing slashes."""
    no_control(text)
    if text.startswith("~"):
        raise ValueError(f"{quoted(text)} must be absolute; ~ is not filled in here")
    if not text.startswith("/"):
        raise ValueError(f"{quoted(text)} must be absolute: begin with /")
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ValueError(f"{quoted(text)} must not hold '..'")
    if not parts:
        raise ValueError("must not be / itself")
    placeholders(text, PATH_PLACEHOLDERS)
    return "/" + "/".join(parts)


def shared_path(text: str) -> str:
    """A relative path without `..`; comes back without doubled or trailing slashes."""
    no_control(text)
    if text.startswith("/"):
        raise ValueError(f"{quoted(text)} must be relative to the release")
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ValueError(f"{quoted(text)} must not hold '..'")
    if not parts:
        raise ValueError(f"{quoted(text)} is the release itself")
    return "/".join(parts)


def variable(text: str) -> str:
    if not re.fullmatch(_VARIABLE, text):
        raise ValueError("can't name a variable: use letters, digits and '_', and don't begin with a digit")
    if text.startswith("DEPLOYCTL_"):
        raise ValueError("names that begin with DEPLOYCTL_ are set by deployctl")
    return text


def check_url(text: str) -> str:
    no_control(text)
    placeholders(text, URL_PLACEHOLDERS)
    if not _URL.fullmatch(text):
        raise ValueError("must be a URL like http://{address}:8080/healthz, without a login in it")
    return text


def duration(value: object) -> float:
    """Seconds, more than none; takes a number as it is and a text by its unit."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("must be a duration like 500ms, 10s, 5m or 1h")  # noqa: TRY004 - pydantic collects ValueError
    text = value if isinstance(value, str) else f"{value:f}" if isinstance(value, float) else _digits(value)
    seconds = duration_s(text)
    if seconds <= 0:
        raise ValueError("must be longer than nothing")
    return seconds


def _digits(number: int) -> str:
    return str(number) if abs(number) < 10**12 else "that many"


def _pattern(pattern: str) -> dict[str, Any]:
    """The pattern for the JSON Schema alone: checks above say in words what a pattern can't."""
    return {"pattern": f"^(?:{pattern})$"}


App = Annotated[StrictStr, AfterValidator(app), Field(json_schema_extra=_pattern(_APP))]
GroupName = Annotated[StrictStr, AfterValidator(group_name), Field(json_schema_extra=_pattern(_GROUP))]
HostPattern = Annotated[StrictStr, AfterValidator(host_pattern), Field(json_schema_extra={"minLength": 1})]
Address = Annotated[StrictStr, AfterValidator(host), Field(json_schema_extra={"minLength": 1})]
User = Annotated[StrictStr, AfterValidator(user), Field(json_schema_extra=_pattern(_USER))]
Jump = Annotated[StrictStr, AfterValidator(jump), Field(json_schema_extra={"minLength": 1})]
Port = Annotated[StrictInt, AfterValidator(port), Field(json_schema_extra={"minimum": 1, "maximum": 65535})]
Fingerprint = Annotated[
    StrictStr, AfterValidator(fingerprint), Field(json_schema_extra=_pattern(_FINGERPRINT))
]
LocalFile = Annotated[StrictStr, AfterValidator(no_control), Field(json_schema_extra={"minLength": 1})]
DeployPath = Annotated[StrictStr, AfterValidator(deploy_path), Field(json_schema_extra=_pattern("/.+"))]
SharedPath = Annotated[StrictStr, AfterValidator(shared_path), Field(json_schema_extra=_pattern("[^/].*"))]
Exclude = Annotated[StrictStr, AfterValidator(no_control), Field(json_schema_extra={"minLength": 1})]
Script = Annotated[StrictStr, AfterValidator(filled), Field(json_schema_extra={"minLength": 1})]
Variable = Annotated[StrictStr, AfterValidator(variable), Field(json_schema_extra=_pattern(_VARIABLE))]
CheckUrl = Annotated[StrictStr, AfterValidator(check_url), Field(json_schema_extra=_pattern("https?://.+"))]
Duration = Annotated[
    float,
    BeforeValidator(duration),
    WithJsonSchema(
        {"anyOf": [{"type": "string", **_pattern(_DURATION)}, {"type": "number", "exclusiveMinimum": 0}]}
    ),
]
