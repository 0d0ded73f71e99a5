"""What to log in with: found, unlocked and asked for once, in the parent, before any worker is forked.

Owns the choice and order of keys; refuses to connect anywhere but to a local agent, and to keep one open.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko

from deployctl.errors import InventoryError, UsageError
from deployctl.host.keyring import (
    Agent,
    Certificate,
    Encrypted,
    KeyFileError,
    blobs,
    is_encrypted,
    load_certificate,
    load_key,
    public_blob,
)
from deployctl.host.target import Source, Target
from deployctl.model import PASSPHRASE_ENV

ATTEMPTS = 3  # at a passphrase on a terminal

Ask = Callable[[str], str]


@dataclass(slots=True)
class Identity:
    """One key file: loaded, or to be had from the agent (`blob` is its public half)."""

    path: str
    blob: bytes | None = None
    key: paramiko.PKey | None = None


@dataclass(slots=True)
class Credentials:
    """All that logins need; inherited by workers through fork, never sent anywhere. `warnings` are for people."""

    identities: dict[str, Identity] = field(default_factory=dict)
    certificates: dict[str, Certificate] = field(default_factory=dict)
    password: str | None = field(default=None, repr=False)
    warnings: list[str] = field(default_factory=list)

    def offers(self, target: Target, agent: Agent) -> Iterator[tuple[str, paramiko.PKey]]:
        """What to offer, best first, as name and key: configured identities, then other keys of the agent.

        Servers count attempts (MaxAuthTries), so nothing that was not asked for stands before what was.
        """
        held = {key.asbytes(): key for key in agent.held()}
        offered: set[bytes] = set()
        if target.identity_source == "default":  # nobody chose: what the user put into the agent comes first
            yield from self._from_agent(held, offered)
        for path in target.identity_files:
            identity = self.identities.get(path)
            if identity is None:
                continue
            key = identity.key or held.get(identity.blob or b"")
            if key is not None and key.asbytes() not in offered:
                offered.add(key.asbytes())
                yield from self._certified(path, key, target)
                yield path, key
        if not target.identities_only:
            yield from self._from_agent(held, offered)

    def _from_agent(
        self, held: Mapping[bytes, paramiko.PKey], offered: set[bytes]
    ) -> Iterator[tuple[str, paramiko.PKey]]:
        for blob, key in held.items():
            if blob not in offered:
                offered.add(blob)
                yield f"{getattr(key, 'comment', '') or key.get_name()} (agent)", key

    def _certified(
        self, path: str, key: paramiko.PKey, target: Target
    ) -> Iterator[tuple[str, paramiko.PKey]]:
        """The same key under each certificate there is for it; the key given stays without."""
        blob = key.asbytes()
        for name in (f"{path}-cert.pub", *target.certificate_files):
            certificate = self.certificates.get(name)
            if certificate is not None and certificate.blob == blob:
                yield certificate.path, _Certified(key, certificate)


class _Certified(paramiko.PKey):
    """A key that introduces itself by a certificate."""

    def __init__(self, key: paramiko.PKey, certificate: Certificate) -> None:
        self._key = key
        self.public_blob = certificate.certified

    def asbytes(self) -> bytes:
        return self._key.asbytes()

    def get_name(self) -> str:
        return self._key.get_name()

    def sign_ssh_data(self, data: Any, algorithm: str | None = None) -> paramiko.Message:
        plain = algorithm.removesuffix("-cert-v01@openssh.com") if algorithm else None
        return self._key.sign_ssh_data(data, plain)


def prepare_credentials(
    targets: Sequence[Target],
    *,
    environ: Mapping[str, str] | None = None,
    ask: Ask | None = None,
    ask_pass: bool = False,
) -> Credentials:
    """Read and unlock every key that the targets name. Call it before any fork; it starts no thread.

    `ask` shows a question and returns what was typed, unseen; None when there is no terminal. Raises InventoryError
    for a key that the inventory names and that can't be used, UsageError where a secret is needed and nobody can be
    asked.
    """
    env = os.environ if environ is None else environ
    preparation = _Preparation(env, ask)
    everyone = [one for target in targets for one in (*target.hops, target)]
    for target in everyone:
        preparation.certificates(target)
        for path in target.identity_files:
            preparation.identity(path, target.identity_source, target)
    if preparation.problems:
        raise InventoryError(list(dict.fromkeys(preparation.problems)))
    preparation.unlock_defaults(ask_pass=ask_pass)
    if ask_pass:
        if ask is None:
            raise UsageError(
                "--ask-pass needs a terminal to ask on", hint="use a key, or run it in a terminal"
            )
        preparation.found.password = ask("login password: ")
    return preparation.found


class _Preparation:
    def __init__(self, environ: Mapping[str, str], ask: Ask | None) -> None:
        self.environ = environ
        self.ask = ask
        self.found = Credentials()
        self.problems: list[str] = []
        self._agents: dict[str | None, set[bytes]] = {}
        self._locked_defaults: list[tuple[str, bytes]] = []

    def held(self, agent: str | None) -> set[bytes]:
        """Public halves of what the agent holds; it is asked once."""
        if agent not in self._agents:
            with Agent(agent) as connection:
                self._agents[agent] = blobs(connection.get_keys())
        return self._agents[agent]

    def certificates(self, target: Target) -> None:
        beside = [f"{path}-cert.pub" for path in target.identity_files]
        for path in (*beside, *target.certificate_files):
            if path in self.found.certificates:
                continue
            try:
                self.found.certificates[path] = load_certificate(path)
            except FileNotFoundError:
                continue
            except (OSError, KeyFileError) as error:
                self.found.warnings.append(f"{path}: ignored: {_words(error)}")

    def identity(self, path: str, source: Source, target: Target) -> None:
        if path in self.found.identities:
            return
        try:
            data = _read_private(path)
        except (OSError, KeyFileError) as error:
            public = _public_only(path)
            if public is not None and public in self.held(target.agent):
                self.found.identities[path] = Identity(path, public)
            else:
                self._cannot(
                    path, source, target, _words(error), missing=isinstance(error, FileNotFoundError)
                )
            return
        blob = public_blob(Path(path), data)
        identity = Identity(path, blob)
        if blob is None or blob not in self.held(target.agent):
            try:
                identity.key = self._unlock(path, data, source)
            except KeyFileError as error:
                self._cannot(path, source, target, str(error), missing=False)
                return
            if identity.key is None:
                return
        self.found.identities[path] = identity

    def _cannot(self, path: str, source: Source, target: Target, why: str, *, missing: bool) -> None:
        if source == "inventory":
            self.problems.append(f"{target.name}: identity_file: {path}: {why}")
        elif not missing:  # ssh goes on without a missing one, too
            self.found.warnings.append(f"{path}: ignored: {why}")

    def _unlock(self, path: str, data: bytes, source: Source) -> paramiko.PKey | None:
        if not is_encrypted(data):
            return load_key(data)
        if source == "default" and PASSPHRASE_ENV not in self.environ:
            self._locked_defaults.append((path, data))
            return None
        return self._decrypt(path, data, needed=source == "inventory")

    def _decrypt(self, path: str, data: bytes, *, needed: bool) -> paramiko.PKey | None:
        given = self.environ.get(PASSPHRASE_ENV)
        if given is not None:
            try:
                return load_key(data, given)
            except Encrypted:
                raise UsageError(
                    f"{path}: the passphrase in {PASSPHRASE_ENV} does not open this key"
                ) from None
        if self.ask is None:
            if needed:
                hint = f"load it with ssh-add, or give its passphrase in {PASSPHRASE_ENV}"
                raise UsageError(
                    f"{path}: the key is encrypted and there is no terminal to ask on", hint=hint
                )
            self.found.warnings.append(f"{path}: ignored: it is encrypted and there is no terminal to ask on")
            return None
        for attempt in range(ATTEMPTS):
            again = "wrong passphrase, again; " if attempt else ""
            try:
                return load_key(data, self.ask(f"{again}passphrase for {path}: ") or " ")
            except Encrypted:
                continue
        raise UsageError(f"{path}: no passphrase that opens this key in {ATTEMPTS} attempts")

    def unlock_defaults(self, *, ask_pass: bool) -> None:
        """Encrypted default keys are asked for only where there is nothing else to log in with."""
        if self.found.identities or ask_pass or any(self._agents.values()):
            return
        for path, data in self._locked_defaults:
            key = self._decrypt(path, data, needed=False)
            if key is not None:
                self.found.identities[path] = Identity(path, key.asbytes(), key)
                return


def _read_private(path: str) -> bytes:
    """Refuses what others can read, as OpenSSH does: their copy may be in use already."""
    file = Path(path)
    mode = file.stat()
    if not stat.S_ISREG(mode.st_mode):
        raise KeyFileError("it is not a file")
    data = file.read_bytes()
    if mode.st_uid == os.getuid() and mode.st_mode & 0o077:
        shown = stat.S_IMODE(mode.st_mode)
        raise KeyFileError(f"its mode is {shown:04o}, others can read it: chmod 600 {path}")
    return data


def _public_only(path: str) -> bytes | None:
    """A public key that stands for one in the agent: the file itself, or `.pub` beside it."""
    for candidate in (Path(path), Path(path + ".pub")):
        try:
            words = candidate.read_bytes().split()
            if len(words) >= 2 and words[0].startswith((b"ssh-", b"ecdsa-", b"sk-")):
                return paramiko.pkey.PublicBlob.from_string(b" ".join(words[:2]).decode()).key_blob
        except (OSError, ValueError):
            continue
    return None


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error)
