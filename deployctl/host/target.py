"""Where and how to connect to each host: the inventory over ssh config over the defaults.

Owns the precedence and the type that crosses to the workers; refuses to open anything but configuration files.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from deployctl.errors import UsageError
from deployctl.host.sshconfig import Local, Options, SshConfig, expand
from deployctl.model import Host, HostKeys

PORT = 22
CONNECT_TIMEOUT_S = 10.0
DEFAULT_IDENTITIES = ("id_ed25519", "id_ecdsa", "id_rsa")
GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")

Source = Literal["inventory", "config", "default"]


@dataclass(frozen=True, slots=True)
class Target:
    """One host to log in to, every choice made; a jump host is one too."""

    name: str  # ours; of a jump host as written
    address: str
    user: str
    port: int = PORT
    identity_files: tuple[str, ...] = ()
    identity_source: Source = "default"
    certificate_files: tuple[str, ...] = ()
    identities_only: bool = False  # no other key that the agent has
    agent: str | None = None  # the agent's socket
    known_hosts: tuple[str, ...] = ()  # a learned key goes into the first
    host_key_alias: str | None = None
    host_keys: HostKeys = HostKeys.STRICT
    fingerprint: str | None = None  # "SHA256:…"
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    retries: int = 2
    proxy_command: str | None = None  # for a shell, tokens replaced
    hops: tuple[Target, ...] = ()  # the first is dialled first; these have no hops of their own

    @property
    def endpoint(self) -> str:
        """`address:port`, an IPv6 address in brackets."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def first_hop(self) -> str:
        """`address:port` of what is dialled first: what a burst of connections would hit."""
        return self.hops[0].endpoint if self.hops else self.endpoint

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names that known_hosts may have it under, the best first."""
        if self.host_key_alias:
            return (self.host_key_alias.lower(),)
        address = self.address.lower()
        return (address,) if self.port == PORT else (f"[{address}]:{self.port}", address)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        hops = tuple(cls.from_json(hop) for hop in data["hops"])
        known.update(hops=hops, host_keys=HostKeys(data["host_keys"]))
        return cls(**known)


def resolve_targets(
    hosts: Sequence[Host],
    *,
    config_files: Sequence[Path] | None = None,
    environ: Mapping[str, str] | None = None,
    login_user: str | None = None,
    warn: list[str] | None = None,
) -> list[Target]:
    """One target for each host, in order. `warn` gathers what could not be honoured.

    Raises UsageError with FILE:LINE for what is wrong in ssh config, and for jump hosts that lead in a circle.
    """
    env = os.environ if environ is None else environ
    home = env.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    local = Local(login_user or pwd.getpwuid(os.getuid()).pw_name, home, env)
    files = [Path(home, ".ssh/config"), Path("/etc/ssh/ssh_config")] if config_files is None else config_files
    config = SshConfig(files, local)
    targets = [_Resolver(config, host).target() for host in hosts]
    if warn is not None:
        warn += config.warnings
    return targets


class _Resolver:
    """Resolves one host of the inventory and the jump hosts on the way to it."""

    def __init__(self, config: SshConfig, host: Host) -> None:
        self.config = config
        self.local = config.local
        self.host = host

    def target(self) -> Target:
        host = self.host
        options = self.config.lookup(host.address, user=host.user, port=host.port)
        target = self._plain(host.address, options)
        target = replace(target, name=host.name, fingerprint=host.fingerprint)
        seen = (target.endpoint,)
        if host.jump == "none":
            return target
        if host.jump is not None:
            return replace(target, hops=self._chain(host.jump, seen))
        return self._via(target, options, host.address, seen)

    def _plain(self, address: str, options: Options) -> Target:
        """Everything but the way there."""
        host, say = self.host, _Say(options, self.local, address)
        identity_files, source = self._identities(say)
        known = [host.known_hosts] if host.known_hosts else say.paths("userknownhostsfile")
        known = known or [f"{self.local.home}/.ssh/known_hosts", f"{self.local.home}/.ssh/known_hosts2"]
        timeout_s = say.number("connecttimeout") if host.connect_timeout_s is None else host.connect_timeout_s
        return Target(
            name=address,
            address=say.hostname,
            user=say.user,
            port=say.port,
            identity_files=identity_files,
            identity_source=source,
            certificate_files=tuple(say.paths("certificatefile")),
            identities_only=source == "inventory" or options.first("identitiesonly") == "yes",
            agent=self._agent(say),
            known_hosts=(*known, *(say.paths("globalknownhostsfile") or GLOBAL_KNOWN_HOSTS)),
            host_key_alias=options.first("hostkeyalias"),
            host_keys=host.host_keys,
            connect_timeout_s=timeout_s or CONNECT_TIMEOUT_S,
            retries=host.retries,
        )

    def _identities(self, say: _Say) -> tuple[tuple[str, ...], Source]:
        if self.host.identity_file:
            return (self.host.identity_file,), "inventory"
        if "identityfile" in say.options.words:
            return tuple(say.paths("identityfile")), "config"
        return tuple(f"{self.local.home}/.ssh/{name}" for name in DEFAULT_IDENTITIES), "default"

    def _agent(self, say: _Say) -> str | None:
        said = say.options.first("identityagent")
        variable = self.local.environ.get("SSH_AUTH_SOCK") or None
        if said is None or said == "SSH_AUTH_SOCK":
            return variable
        if said.startswith("$") and not said.startswith("${"):
            return self.local.environ.get(said[1:]) or None
        return next(iter(say.paths("identityagent")), None)

    def _via(self, target: Target, options: Options, original: str, seen: tuple[str, ...]) -> Target:
        """ProxyJump or ProxyCommand from ssh config, whichever comes first there."""
        for keyword in options.words:
            value = options.first(keyword) or "none"
            if keyword == "proxyjump":
                return target if value == "none" else replace(target, hops=self._chain(value, seen))
            if keyword == "proxycommand":
                if value == "none":
                    return target
                tokens = _Say(options, self.local, original).tokens()
                return replace(target, proxy_command=expand(value, tokens, {}, options.where[keyword]))
        return target

    def _chain(self, jump: str, seen: tuple[str, ...]) -> tuple[Target, ...]:
        """The hops of `[user@]host[:port],…`, the way to the first of them included."""
        hops: list[Target] = []
        for spec in jump.split(","):
            user, address, port = _parse_jump(spec.strip(), self.host.name)
            options = self.config.lookup(address, user=user, port=port)
            hop = replace(self._plain(address, options), name=spec.strip())
            if hop.endpoint in seen:
                circle = " -> ".join((*seen, hop.endpoint))
                hint = "a host that needs no jump host gets `jump: none`"
                raise UsageError(f"{self.host.name}: jump hosts lead in a circle: {circle}", hint=hint)
            seen = (*seen, hop.endpoint)
            if not hops:  # as ssh: the way to the others is the chain itself
                hop = self._via(hop, options, address, seen)
                hops += hop.hops
            hops.append(replace(hop, hops=()))
        return tuple(hops)


class _Say:
    """Typed answers of ssh config for one host."""

    def __init__(self, options: Options, local: Local, original: str) -> None:
        self.options = options
        self.local = local
        self.original = original
        named = options.first("hostname")
        where = options.where.get("hostname", "")
        self.hostname = expand(named, {"h": original}, {}, where) if named else original
        self.user = options.first("user") or local.user
        self.port = int(self.number("port") or PORT)

    def tokens(self) -> dict[str, str]:
        node = os.uname().nodename
        return {
            "h": self.hostname, "n": self.original, "p": str(self.port), "r": self.user, "u": self.local.user,
            "d": self.local.home, "k": self.options.first("hostkeyalias") or self.original,
            "i": str(os.getuid()), "l": node, "L": node.split(".")[0],
        }  # fmt: skip

    def number(self, keyword: str) -> float | None:
        value = self.options.first(keyword)
        if value is None or value == "none":
            return None
        if not value.isdigit() or (keyword == "port" and not 0 < int(value) < 65536):
            raise UsageError(
                f"{self.options.where.get(keyword, keyword)}: {value!r} is not a number for {keyword}"
            )
        return float(value)

    def paths(self, keyword: str) -> list[str]:
        found = []
        for word in self.options.words.get(keyword, []):
            if word.lower() == "none":
                continue
            path = expand(word, self.tokens(), self.local.environ, self.options.where[keyword])
            found.append(self.local.home + path[1:] if path.startswith("~/") else path)
        return found


def _parse_jump(spec: str, name: str) -> tuple[str | None, str, int | None]:
    user, at, rest = spec.removeprefix("ssh://").rpartition("@")
    address, port = rest, ""
    if rest.startswith("["):
        address, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    elif rest.count(":") == 1:
        address, _, port = rest.partition(":")
    if not address or (at and not user) or (port and not (port.isdigit() and 0 < int(port) < 65536)):
        raise UsageError(f"{name}: {spec!r} is not a jump host: [user@]host[:port] is")
    return user or None, address, int(port) if port else None
