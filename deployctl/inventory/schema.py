"""The keys of hosts.yaml and the kind of value each one takes, as pydantic models.

Owns what can be said of one key on its own; rules between keys are in rules.py and hosts.py. Defaults stand in the
dataclasses of config.py and model.py: here None means that the file does not say it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from deployctl.inventory.fields import (
    Address,
    App,
    CheckUrl,
    DeployPath,
    Duration,
    Exclude,
    Fingerprint,
    GroupName,
    HostPattern,
    Jump,
    LocalFile,
    Port,
    Script,
    SharedPath,
    User,
    Variable,
)

HOOKS = ("build", "staged", "activating", "activated", "released", "failed")
LOCAL_HOOKS = ("build", "released", "failed")  # these run here, the others on hosts


def _named(key: str) -> Callable[[object], object]:
    """Lets a text stand for a mapping of one key."""
    return lambda value: {key: value} if isinstance(value, str) else value


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict) else value


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Ssh(_Model):
    """How to reach hosts; what is absent comes from ~/.ssh/config or the defaults."""

    user: User | None = Field(None, description="login user")
    port: Port | None = Field(None, description="port of the SSH server")
    identity_file: LocalFile | None = Field(None, description="private key to log in with; ~ is filled in")
    known_hosts: LocalFile | None = Field(None, description="file of known host keys; ~ is filled in")
    host_keys: Literal["strict", "accept-new"] | None = Field(
        None,
        description="strict (default): unknown host keys fail; accept-new: first contact records the key",
    )
    jump: Jump | None = Field(None, description="[user@]host[:port] to go through; several joined by commas")
    connect_timeout: Duration | None = Field(None, description="longest wait for a connection")
    retries: Annotated[StrictInt, Field(ge=0, le=100)] | None = Field(
        None, description="further attempts to connect, with backoff, before the host counts as failed"
    )


_Literal = StrictStr | StrictInt | StrictFloat | StrictBool


class VarEntry(_Model):
    """A variable for hooks: a literal, or the value of an environment variable of the run."""

    value: StrictStr | None = Field(None, description="the value itself")
    env: Variable | None = Field(None, description="take the value from this variable of the environment")
    secret: StrictBool | None = Field(None, description="keep the value out of every output")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.value is None) == (self.env is None):
            raise ValueError(
                "needs either 'value' or 'env'" if self.env is None else "has both 'value' and 'env'"
            )
        return self


Var = Annotated[VarEntry, BeforeValidator(_named("value"), json_schema_input_type=_Literal | VarEntry)]
Vars = dict[Variable, Var]


class HostEntry(_Model):
    """A host, or with a range in `name` several."""

    name: HostPattern = Field(description="name of the host, or a range like web[01-20].example.com")
    address: Address | None = Field(None, description="where to connect to, if not to the name")
    port: Port | None = Field(None, description="port of the SSH server")
    user: User | None = Field(None, description="login user")
    identity_file: LocalFile | None = Field(None, description="private key to log in with; ~ is filled in")
    jump: Jump | None = Field(None, description="[user@]host[:port] to go through; several joined by commas")
    fingerprint: Fingerprint | None = Field(None, description="of the host key, as ssh-keygen -lf prints it")
    path: DeployPath | None = Field(None, description="the deploy root on this host")
    vars: Vars | None = Field(None, description="environment of hooks on this host")


HostItem = Annotated[
    HostEntry, BeforeValidator(_named("name"), json_schema_input_type=HostPattern | HostEntry)
]


class Group(_Model):
    """A named set of hosts, with what is particular to them."""

    hosts: list[HostItem] = Field(description="the hosts: names, ranges, or mappings")
    ssh: Ssh | None = Field(None, description="overrides the top's ssh")
    path: DeployPath | None = Field(None, description="overrides the top's path")
    vars: Vars | None = Field(None, description="added to the top's vars; a variable of the same name wins")


class HookEntry(_Model):
    """A shell command at one moment of a release."""

    run: Script = Field(description="the command, for sh")
    timeout: Duration | None = Field(None, description="longest time it may take")
    once: StrictBool | None = Field(None, description="run it on the first host alone")
    groups: list[GroupName] | None = Field(None, description="run it on hosts of these groups alone")


HookItem = Annotated[HookEntry, BeforeValidator(_named("run"), json_schema_input_type=Script | HookEntry)]


class Hooks(_Model):
    """Commands at the moments of a release."""

    build: list[HookItem] | None = Field(None, description="here, in SOURCE, before packing")
    staged: list[HookItem] | None = Field(
        None, description="each host, in the new release, before anything is live"
    )
    activating: list[HookItem] | None = Field(None, description="each host, just before its switch")
    activated: list[HookItem] | None = Field(None, description="each host, after its switch")
    released: list[HookItem] | None = Field(None, description="here, once, when every host is done")
    failed: list[HookItem] | None = Field(None, description="here, once, when the release failed")


class CheckEntry(_Model):
    """A proof that the new release works: a URL or a command, tried until it succeeds or time is over."""

    url: CheckUrl | None = Field(None, description="{host}, {address}, {app} and {release} are filled in")
    run: Script | None = Field(None, description="a command on the host; exit status 0 is success")
    from_: Literal["here", "host"] | None = Field(
        None, alias="from", description="who asks for the URL: here, or host"
    )
    expect: Annotated[StrictInt, Field(ge=100, le=599)] | None = Field(None, description="HTTP status")
    text: Script | None = Field(None, description="text that the answer must hold")
    timeout: Duration | None = Field(None, description="how long to try")
    interval: Duration | None = Field(None, description="pause between attempts")


Checks = Annotated[
    list[CheckEntry], BeforeValidator(_listed, json_schema_input_type=CheckEntry | list[CheckEntry])
]


class SharedEntry(_Model):
    """What outlives releases, linked into each of them."""

    dirs: list[SharedPath] | None = Field(None, description="directories, relative to the release")
    files: list[SharedPath] | None = Field(None, description="files, relative to the release")


class Release(_Model):
    """How a release is made."""

    keep: Annotated[StrictInt, Field(ge=1, le=1000)] | None = Field(
        None, description="releases kept on a host"
    )
    links: Literal["copy", "hard"] | None = Field(
        None, description="how unchanged files come from the release before: copy (default), or hard links"
    )
    exclude: list[Exclude] | None = Field(None, description="gitignore patterns of what is not released")
    shared: SharedEntry | None = Field(None, description="what outlives releases")
    hooks: Hooks | None = Field(None, description="commands at the moments of a release")
    check: Checks | None = Field(None, description="one check, or a list of them")


class File(_Model):
    """A deployctl inventory."""

    app: App = Field(description="name of what is deployed")
    path: DeployPath = Field(description="the deploy root on every host; {host} and {app} are filled in")
    ssh: Ssh | None = Field(None, description="defaults for every host")
    vars: Vars | None = Field(None, description="environment of hooks on every host")
    groups: dict[GroupName, Group] = Field(description="the hosts, in named sets")
    release: Release | None = Field(None, description="how a release is made")
