"""Foreign exceptions to HostError, in one place: the kind, what was tried, what was said, what to do.

Owns the words for everything that paramiko, sockets and the resolver can raise; refuses to know who asks.
"""

from __future__ import annotations

import errno
import socket
import time
from dataclasses import dataclass, replace

import paramiko
from paramiko.ssh_exception import (
    AuthenticationException,
    BadHostKeyException,
    ChannelException,
    ConfigParseError,
    CouldNotCanonicalize,
    IncompatiblePeer,
    MessageOrderError,
    NoValidConnectionsError,
    ProxyCommandFailure,
)

from deployctl.errors import Code, HostError
from deployctl.host.wire import NotSsh

LIMIT = 200  # characters of foreign text in a message

_NO_ROUTE = frozenset({
    errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EINVAL, errno.EACCES, errno.EPERM,
    errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT,
})  # fmt: skip
_DROPPED = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ESHUTDOWN})


TIMEOUT_HINT = "--timeout sets how long a phase may take on a host"


@dataclass(frozen=True, slots=True)
class Limit:
    """When a wait ends, on the monotonic clock; how long it is in all, and the setting that says so."""

    at: float
    seconds: float
    setting: str = ""  # none: it is fixed

    @property
    def left_s(self) -> float:
        return max(0.0, self.at - time.monotonic())

    @property
    def words(self) -> str:
        return f" within {self.seconds:.3g} s" + (f" ({self.setting})" if self.setting else "")

    @property
    def hint(self) -> str | None:
        if self.setting == "--timeout":
            return TIMEOUT_HINT
        return f"{self.setting} in the inventory gives it more time" if self.setting else None


@dataclass(frozen=True, slots=True)
class Scene:
    """What was going on: `endpoint` is `address:port`, `said` whatever the other side let us know in text."""

    endpoint: str
    user: str = ""
    said: str = ""
    established: bool = False  # logged in; from here on an end is a connection lost
    offered: str = ""  # algorithms, for a peer that has none in common
    limit: Limit | None = None  # of what is waited for


def quote(text: str | bytes) -> str:
    """Foreign text for a message: one line, printable, of bounded length."""
    plain = text.decode(errors="replace") if isinstance(text, bytes) else text
    line = " ".join("".join(char if char.isprintable() else " " for char in plain).split())
    return line if len(line) <= LIMIT else line[:LIMIT] + "…"


def to_host_error(error: BaseException, scene: Scene) -> HostError:
    """The HostError for anything that a connection can raise; HostError passes as it is."""
    if isinstance(error, HostError):
        return error
    for kinds, build in _BY_CLASS:
        if isinstance(error, kinds):
            return build(error, scene)
    text = quote(str(error)) or "no text"
    return HostError(Code.UNEXPECTED, f"{scene.endpoint}: unexpected {type(error).__name__}: {text}")


def _said(scene: Scene) -> str:
    return f" ({quote(scene.said)})" if scene.said else ""


def timed_out(scene: Scene, what: str) -> HostError:
    words, hint = (scene.limit.words, scene.limit.hint) if scene.limit else ("", None)
    return HostError(Code.TIMED_OUT, f"{scene.endpoint}: {what}{words}{_said(scene)}", hint=hint)


def lost(scene: Scene, cause: str = "") -> HostError:
    return HostError(
        Code.LOST, f"connection to {scene.endpoint} lost{': ' + cause if cause else ''}{_said(scene)}"
    )


def _name_error(error: BaseException, scene: Scene) -> HostError:
    temporary = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
    host = scene.endpoint.rpartition(":")[0]
    what = "its name could not be looked up right now" if temporary else "name not found"
    data = {"retry": True} if temporary else {}
    return HostError(
        Code.UNREACHABLE, f"{host}: {what}", hint="check the address in the inventory, and DNS", data=data
    )


def _os_error(error: BaseException, scene: Scene) -> HostError:
    number = error.errno if isinstance(error, OSError) else None
    said = quote(getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
    if isinstance(error, TimeoutError) or number == errno.ETIMEDOUT:
        return _no_answer(scene, by_system=number == errno.ETIMEDOUT)
    if scene.established:
        return lost(scene, said)
    if number == errno.ECONNREFUSED:
        hint = "is an SSH server running there, on that port?"
        return HostError(Code.UNREACHABLE, f"{scene.endpoint}: {said}", hint=hint, data={"retry": True})
    if number in _NO_ROUTE:
        return HostError(
            Code.UNREACHABLE, f"{scene.endpoint}: unreachable: {said}", hint="check the route and firewalls"
        )
    if number in _DROPPED or isinstance(error, ConnectionError):
        return dropped(scene, said)
    return HostError(Code.UNREACHABLE, f"{scene.endpoint}: {said}")


def _no_answer(scene: Scene, *, by_system: bool) -> HostError:
    if scene.established:
        return timed_out(scene, "no answer")
    if by_system:  # it gave up before our limit came
        said = "no answer to the connection until the system gave up (net.ipv4.tcp_syn_retries)"
        return timed_out(replace(scene, limit=None), said)
    return timed_out(scene, "no answer to the connection")


def dropped(scene: Scene, cause: str) -> HostError:
    """The server hung up before the login: MaxStartups, a firewall, a crash. Worth another attempt."""
    message = f"{scene.endpoint}: connection closed before the login: {cause}{_said(scene)}"
    hint = "too many connections at a time? see MaxStartups in its sshd_config, or lower --forks"
    return HostError(Code.UNREACHABLE, message, hint=hint, data={"retry": True})


def _not_ssh(_error: BaseException, scene: Scene) -> HostError:
    return HostError(
        Code.UNREACHABLE, f"{scene.endpoint}: what answers is not SSH{_said(scene)}", hint="check the port"
    )


def _crypto(error: BaseException, scene: Scene) -> HostError:
    message = f"{scene.endpoint}: no algorithm in common: {quote(str(error))}"
    return HostError(Code.UNREACHABLE, f"{message}{'; ' + scene.offered if scene.offered else ''}")


def login_refused(scene: Scene, tried: str, allowed: str = "") -> HostError:
    what = f"login refused for {scene.user or 'the user'} at {scene.endpoint}: {tried}"
    message = f"{what}{'; the server allows ' + allowed if allowed else ''}{_said(scene)}"
    hint = "check user and identity_file; load the key with ssh-add, or use --ask-pass for a password"
    return HostError(Code.LOGIN, message, hint=hint)


def _auth(error: BaseException, scene: Scene) -> HostError:
    return login_refused(scene, quote(str(error)).lower().rstrip("."))


def _proxy(error: BaseException, scene: Scene) -> HostError:
    return HostError(
        Code.UNREACHABLE, f"{scene.endpoint}: the proxy command failed{_said(scene)}: {quote(str(error))}"
    )


def _bad_key(error: BaseException, scene: Scene) -> HostError:
    return HostError(Code.HOST_KEY, f"{scene.endpoint}: the host key does not match: {quote(str(error))}")


def _channel(error: BaseException, scene: Scene) -> HostError:
    code, text = (error.code, error.text) if isinstance(error, ChannelException) else (0, str(error))
    said = f"{scene.endpoint}: the server opened no further session on this connection: {quote(text).lower()}"
    hint = "raise MaxSessions in its sshd_config" if code in {1, 2} else None
    return HostError(Code.NOT_PERMITTED if code == 1 else Code.LOST, said, hint=hint, data={"channel": code})


def _ended(_error: BaseException, scene: Scene) -> HostError:
    return (
        lost(scene, "the other end closed it")
        if scene.established
        else dropped(scene, "the other end hung up")
    )


def _protocol(error: BaseException, scene: Scene) -> HostError:
    text = quote(str(error)).lower().rstrip(".")
    if scene.established:
        return lost(scene, text)
    return dropped(scene, text)


def _local(error: BaseException, scene: Scene) -> HostError:
    return HostError(Code.UNEXPECTED, f"{scene.endpoint}: {quote(str(error)).lower()}")


# The first that fits; subclasses stand before their bases.
_BY_CLASS = (
    (NotSsh, _not_ssh),
    (BadHostKeyException, _bad_key),
    (AuthenticationException, _auth),
    (ChannelException, _channel),
    (IncompatiblePeer, _crypto),
    (MessageOrderError, _protocol),
    (ProxyCommandFailure, _proxy),
    ((ConfigParseError, CouldNotCanonicalize), _local),
    (socket.gaierror, _name_error),
    (NoValidConnectionsError, _os_error),
    (UnicodeError, _name_error),  # a label of a host name that no resolver takes
    (paramiko.PasswordRequiredException, _auth),
    (paramiko.SSHException, _protocol),
    (EOFError, _ended),
    (OSError, _os_error),
)
