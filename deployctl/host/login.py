"""Logging in on a connection whose host is proven: keys, then the password, as the server lets us.

Owns the order of attempts and partial logins (a key, then a password); refuses to look for keys.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.ssh_exception import BadAuthenticationType, PartialAuthentication

from deployctl.host.credentials import Credentials
from deployctl.host.failures import Limit, Scene, login_refused, quote, timed_out, to_host_error
from deployctl.host.keyring import Agent
from deployctl.host.peer import Peer
from deployctl.host.target import Target

_Send = Callable[[AuthHandler, threading.Event], object]

METHODS = ("publickey", "password", "keyboard-interactive")


class Login:
    """One login; `run` returns or raises HostError. `allowed` is what the server last said it would take."""

    def __init__(self, peer: Peer, target: Target, credentials: Credentials, limit: Limit) -> None:
        self.peer = peer
        self.target = target
        self.credentials = credentials
        self.limit = limit
        self.allowed = set(METHODS)
        self.tried: list[str] = []
        self._steps = 0  # that the server has accepted but that were not enough
        self._refused_keys: set[str] = set()
        self._used_keys: set[str] = set()

    def run(self) -> None:
        with Agent(self.target.agent) as agent:
            while True:
                before = self._steps
                if self._keys(agent) or self._password():
                    return
                if self._steps == before:
                    raise self._refused()
                # What was refused may be what the server wants now.
                self._refused_keys.clear()

    def _keys(self, agent: Agent) -> bool:
        for name, key in self.credentials.offers(self.target, agent):
            if "publickey" not in self.allowed:
                break
            if name in self._refused_keys | self._used_keys:
                continue
            before = self._steps
            if self._attempt(name, partial(_send_key, self.target.user, key)):
                return True
            (self._refused_keys if self._steps == before else self._used_keys).add(name)
        return False

    def _password(self) -> bool:
        password, user = self.credentials.password, self.target.user
        if password is None:
            return False
        plain: _Send = lambda handler, event: handler.auth_password(user, password, event)  # noqa: E731
        if "password" in self.allowed and self._attempt("password", plain):
            return True
        if "keyboard-interactive" not in self.allowed:
            return False

        def answer(_title: str, _instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
            return [password if not shown else "" for _, shown in prompts]

        return self._attempt(
            "keyboard-interactive", lambda handler, event: handler.auth_interactive(user, answer, event)
        )

    def _attempt(self, name: str, send: _Send) -> bool:
        """One method; false when refused or when the server wants more. The wait is ours, on a clock that can't jump."""
        peer, event = self.peer, threading.Event()
        if name not in self.tried:
            self.tried.append(name)
        peer.get_exception()  # forget what an earlier attempt left
        handler = peer.auth_handler = AuthHandler(peer)
        try:
            send(handler, event)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._broken(error) from error
        if not event.wait(self.limit.left_s):
            raise timed_out(replace(self._scene(), limit=self.limit), f"no answer to the login with {name}")
        if handler.is_authenticated():
            return True
        answer = peer.get_exception()
        if isinstance(answer, PartialAuthentication | BadAuthenticationType):
            self.allowed = set(answer.allowed_types)
            self._steps += isinstance(answer, PartialAuthentication)
        elif not peer.is_active():
            raise self._broken(answer)
        return False

    def _scene(self) -> Scene:
        banner = self.peer.get_banner()
        said = quote(self.peer.parting or banner or "")
        return Scene(self.target.endpoint, user=self.target.user, said=said)

    def _broken(self, error: BaseException | None) -> Exception:
        """The server hung up in the middle of it: after too many attempts, say, or because the account is closed."""
        if self.peer.parting or error is None or isinstance(error, EOFError):
            self.tried[-1] += " (the server hung up)"
            return self._refused()
        return to_host_error(error, self._scene())

    def _refused(self) -> Exception:
        tried = ", ".join(self.tried)
        what = f"tried {tried}" if tried else "there is no key to offer"
        allowed = "" if self.allowed == set(METHODS) else ", ".join(sorted(self.allowed))
        return login_refused(self._scene(), what, allowed)


def _send_key(user: str, key: paramiko.PKey, handler: AuthHandler, event: threading.Event) -> None:
    handler.auth_publickey(user, key, event)
