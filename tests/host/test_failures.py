"""Every exception that paramiko, sockets and the resolver know becomes one kind of failure, in readable words."""

from __future__ import annotations

import errno
import inspect
import socket

import paramiko
import pytest
from paramiko import pkey, ssh_exception

from deployctl.errors import Code, HostError
from deployctl.host.failures import LIMIT, Scene, quote, to_host_error
from deployctl.host.wire import NotSsh

SCENE = Scene("web01.example.com:22", user="deploy", said="bye")
IN_USE = Scene("web01.example.com:22", established=True)

ARGUMENTS: dict[str, tuple[object, ...]] = {
    "BadAuthenticationType": ("bad type", ["publickey"]),
    "PartialAuthentication": (["password"],),
    "ChannelException": (2, "Connect failed"),
    "ProxyCommandFailure": ("nc", "broken pipe"),
    "NoValidConnectionsError": ({("10.0.0.1", 22): ConnectionRefusedError(111, "Connection refused")},),
}


class _Key:
    def get_base64(self) -> str:
        return "AAAA"


def paramiko_exceptions() -> list[BaseException]:
    found: list[BaseException] = []
    for name, kind in inspect.getmembers(ssh_exception, inspect.isclass):
        if issubclass(kind, Exception) and kind.__module__ == ssh_exception.__name__:
            arguments = ARGUMENTS.get(name, ("something went wrong",))
            if name == "BadHostKeyException":
                arguments = ("web01", _Key(), _Key())
            found.append(kind(*arguments))
    return found


@pytest.mark.parametrize("scene", [SCENE, IN_USE], ids=["connecting", "established"])
@pytest.mark.parametrize("error", paramiko_exceptions(), ids=lambda error: type(error).__name__)
def test_no_exception_of_paramiko_is_left_unmapped(error: BaseException, scene: Scene) -> None:
    mapped = to_host_error(error, scene)
    known_defect = isinstance(error, ssh_exception.ConfigParseError | ssh_exception.CouldNotCanonicalize)
    assert (mapped.code is Code.UNEXPECTED) == known_defect, mapped
    assert "web01.example.com:22" in mapped.message


def test_the_list_is_not_empty() -> None:
    assert len(paramiko_exceptions()) >= 13


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), Code.UNREACHABLE),
        (OSError(errno.EHOSTUNREACH, "No route to host"), Code.UNREACHABLE),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), Code.UNREACHABLE),
        (OSError(errno.EINVAL, "Invalid argument"), Code.UNREACHABLE),
        (OSError(errno.EACCES, "Permission denied"), Code.UNREACHABLE),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), Code.UNREACHABLE),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), Code.UNREACHABLE),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), Code.UNREACHABLE),
        (UnicodeError("label too long"), Code.UNREACHABLE),
        (NotSsh(), Code.UNREACHABLE),
        (TimeoutError("timed out"), Code.TIMED_OUT),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), Code.TIMED_OUT),
        (paramiko.PasswordRequiredException("encrypted"), Code.LOGIN),
        (EOFError(), Code.UNREACHABLE),
        (paramiko.SSHException("No existing session"), Code.UNREACHABLE),
        (pkey.UnknownKeyType("x", b""), Code.UNEXPECTED),
        (ZeroDivisionError("division by zero"), Code.UNEXPECTED),
    ],
    ids=repr,
)
def test_while_connecting(error: BaseException, code: Code) -> None:
    mapped = to_host_error(error, SCENE)
    assert mapped.code is code
    assert "web01.example.com" in mapped.message
    assert mapped.message[0].islower()
    assert not mapped.message.endswith(".")


@pytest.mark.parametrize(
    "error",
    [
        EOFError(),
        OSError("Socket is closed"),
        ConnectionResetError(errno.ECONNRESET, "x"),
        paramiko.SSHException("x"),
    ],
    ids=repr,
)
def test_on_a_connection_in_use_it_is_lost(error: BaseException) -> None:
    mapped = to_host_error(error, IN_USE)
    assert mapped.code is Code.LOST
    assert "connection to web01.example.com:22 lost" in mapped.message


def test_what_may_be_tried_again() -> None:
    again = [
        ConnectionRefusedError(errno.ECONNREFUSED, "x"),
        EOFError(),
        socket.gaierror(socket.EAI_AGAIN, "x"),
    ]
    never = [
        paramiko.AuthenticationException(),
        TimeoutError(),
        NotSsh(),
        socket.gaierror(socket.EAI_NONAME, "x"),
    ]
    assert all(to_host_error(error, SCENE).data.get("retry") for error in again)
    assert not any(to_host_error(error, SCENE).data.get("retry") for error in never)


def test_a_host_error_passes_as_it_is() -> None:
    error = HostError(Code.HOOK, "hook failed")
    assert to_host_error(error, SCENE) is error


def test_foreign_text_is_tamed() -> None:
    assert quote(b"\x1b[31mred\r\n\tand \xff more\x00") == "[31mred and � more"
    assert len(quote("x" * 5000)) == LIMIT + 1
