"""Key pairs for tests: made in this process in well under a millisecond, in OpenSSH's own format."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

KeyType = Literal["ed25519", "ecdsa", "rsa"]


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key file (0600), with its public half beside it as `<path>.pub`."""

    path: Path
    public: str  # "ssh-ed25519 AAAA…"

    @property
    def type(self) -> str:
        return self.public.split()[0]

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l prints it: `SHA256:` and base64 without padding."""
        digest = hashlib.sha256(base64.b64decode(self.public.split()[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def make_key(path: Path, kind: KeyType = "ed25519", *, passphrase: str | None = None) -> KeyPair:
    private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if kind == "ed25519":
        private = ed25519.Ed25519PrivateKey.generate()
    elif kind == "ecdsa":
        private = ec.generate_private_key(ec.SECP256R1())
    else:
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, encryption))
    path.chmod(0o600)
    path.with_name(path.name + ".pub").write_text(public + "\n")
    return KeyPair(path, public)


def host_keys(directory: Path) -> Iterator[KeyPair]:
    """Endless different ed25519 keys, one file each in `directory`."""
    number = 0
    while True:
        number += 1
        yield make_key(directory / f"host_ed25519_{number:04}")
