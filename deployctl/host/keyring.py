"""Private keys as files and agents hold them, as paramiko wants them.

Owns reading a key file of any common format, certificates, and one connection to an ssh-agent; refuses to choose among
keys (see `credentials`) and to ask anyone for a passphrase.
"""

from __future__ import annotations

import base64
import io
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_identity,
)
from cryptography.hazmat.primitives.serialization.ssh import SSHCertificate
from paramiko.agent import AgentKey, AgentSSH
from paramiko.message import Message
from paramiko.pkey import PublicBlob

AGENT_TIMEOUT_S = 30.0  # an agent may ask its user to touch a key
_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_MAGIC = b"openssh-key-v1\0"

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class KeyFileError(Exception):
    """A key file that can't be used; the text says why, without the path."""


class Encrypted(Exception):  # noqa: N818 - a question rather than an error
    """A passphrase is needed, or the one given is wrong."""


def load_key(data: bytes, passphrase: str | None = None) -> paramiko.PKey:
    """The key in a file's content: OpenSSH's format, PEM or PKCS #8. Raises Encrypted or KeyFileError."""
    secret = passphrase.encode() if passphrase else None
    loader = load_ssh_private_key if data.lstrip().startswith(_OPENSSH) else load_pem_private_key
    try:
        key = loader(data, password=secret)
    except TypeError as error:
        if secret is not None:  # cryptography objects to a passphrase that is not needed
            return load_key(data)
        raise Encrypted from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if secret is not None and is_encrypted(data):
            raise Encrypted from error
        raise KeyFileError(_why_not(data)) from error
    if not isinstance(key, PrivateKey):
        raise KeyFileError("keys of this type are not supported")
    return _to_paramiko(key)


def is_encrypted(data: bytes) -> bool:
    try:
        load_key(data)
    except Encrypted:
        return True
    except KeyFileError:
        return False
    return False


def _why_not(data: bytes) -> str:
    if b"PuTTY-User-Key-File" in data[:100]:
        return "it is in PuTTY's format: convert it with puttygen -O private-openssh"
    if data.startswith((b"ssh-", b"ecdsa-", b"sk-")):
        return "it is a public key: name the private one"
    return "it is not a private key in a known format"


def _to_paramiko(key: PrivateKey) -> paramiko.PKey:
    text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    kind: type[paramiko.PKey] = paramiko.ECDSAKey
    if isinstance(key, ed25519.Ed25519PrivateKey):
        kind = paramiko.Ed25519Key
    elif isinstance(key, rsa.RSAPrivateKey):
        kind = paramiko.RSAKey
    return kind.from_private_key(io.StringIO(text))


def public_blob(path: Path, data: bytes) -> bytes | None:
    """The public half of a private key file without its passphrase: from the file itself, or from `.pub` beside it."""
    if data.lstrip().startswith(_OPENSSH):
        try:
            body = b"".join(data.split(b"-----")[2].split())
            message = Message(base64.b64decode(body)[len(_MAGIC) :])
            for _ in range(3):  # cipher, way from passphrase to key, its options
                message.get_binary()
            return message.get_binary() if message.get_int() == 1 else None
        except (ValueError, IndexError):
            return None
    try:
        words = path.with_name(path.name + ".pub").read_bytes().split()
        return base64.b64decode(words[1])
    except (OSError, IndexError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Certificate:
    """A user certificate; `blob` is the public key that it certifies, as SSH sends it."""

    path: str
    certified: PublicBlob
    blob: bytes


def load_certificate(path: str) -> Certificate:
    """Raises KeyFileError; OSError when it can't be read."""
    data = Path(path).read_bytes()
    try:
        certificate = load_ssh_public_identity(data)
        if not isinstance(certificate, SSHCertificate):
            raise KeyFileError("it is not a certificate")
        line = certificate.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        blob = base64.b64decode(line.split()[1])
        return Certificate(path, PublicBlob.from_string(data.decode().strip()), blob)
    except (ValueError, UnsupportedAlgorithm, UnicodeDecodeError) as error:
        raise KeyFileError("it is not a certificate that can be used") from error


class Agent(AgentSSH):
    """One connection to the agent at a socket; a context manager. No agent there means no keys."""

    def __init__(self, path: str | None) -> None:
        super().__init__()
        if not path:
            return
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(AGENT_TIMEOUT_S)
            link.connect(os.path.expanduser(path))  # noqa: PTH111 - a socket, not a file
            self._connect(link)  # type: ignore[attr-defined]
        except (OSError, paramiko.SSHException, struct.error):
            link.close()
            self._conn = None

    def held(self) -> list[AgentKey]:
        return [_Patient(self, key.blob, key.comment) for key in self.get_keys()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()  # type: ignore[attr-defined]


class _Patient(AgentKey):
    """An agent's key; when the agent will not sign, the server gets a signature that is none and refuses this key only.

    paramiko signs in the transport's thread, where an exception would end the connection instead of the attempt.
    """

    def sign_ssh_data(self, data: Any, algorithm: str | None = None) -> Message:
        try:
            return super().sign_ssh_data(data, algorithm)
        except (OSError, paramiko.SSHException, AttributeError):
            message = Message()
            message.add_string(algorithm or self.get_name())
            message.add_string(b"\0" * 64)
            return message


def blobs(keys: Iterable[paramiko.PKey]) -> set[bytes]:
    return {key.asbytes() for key in keys}
