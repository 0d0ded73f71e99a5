"""ssh config: what it says for a host, and how the inventory stands above it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployctl.errors import UsageError
from deployctl.host.target import GLOBAL_KNOWN_HOSTS, Target, resolve_targets
from deployctl.model import Host, HostKeys


class Config:
    def __init__(self, directory: Path) -> None:
        self.home = directory
        self.ssh = directory / ".ssh"
        self.ssh.mkdir()
        self.path = self.ssh / "config"
        self.environ = {"HOME": str(directory)}
        self.warnings: list[str] = []

    def target(self, text: str = "", address: str = "web01", **fields: Any) -> Target:
        self.path.write_text(text)
        host = Host(name="one", address=address, path="/srv/x", **fields)
        [target] = resolve_targets(
            [host], config_files=[self.path], environ=self.environ, login_user="me", warn=self.warnings
        )
        return target


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path)


def test_defaults(config: Config) -> None:
    target = config.target()
    assert (target.name, target.address, target.port, target.user) == ("one", "web01", 22, "me")
    assert target.identity_files == tuple(
        f"{config.ssh}/{name}" for name in ("id_ed25519", "id_ecdsa", "id_rsa")
    )
    assert target.known_hosts == (
        f"{config.ssh}/known_hosts",
        f"{config.ssh}/known_hosts2",
        *GLOBAL_KNOWN_HOSTS,
    )
    assert (target.connect_timeout_s, target.hops, target.proxy_command, target.agent) == (10, (), None, None)
    assert target.host_keys is HostKeys.STRICT
    assert target.first_hop == "web01:22"


def test_everything_from_ssh_config(config: Config) -> None:
    target = config.target("""
Host web*
    HostName %h.example.com
    User deploy
    Port=2222
    IdentityFile ~/.ssh/%r_key
    IdentityFile "%d/with space"
    CertificateFile ~/c-cert.pub
    IdentityAgent ${HOME}/agent
    IdentitiesOnly yes
    ConnectTimeout 7
    UserKnownHostsFile ~/a ~/b
    GlobalKnownHostsFile none
    HostKeyAlias shop
Host *
    User nobody   # the first value counts
    Port 1
""")
    assert target.address == "web01.example.com"
    assert (target.user, target.port, target.connect_timeout_s) == ("deploy", 2222, 7)
    assert target.identity_files == (f"{config.ssh}/deploy_key", f"{config.home}/with space")
    assert target.certificate_files == (f"{config.home}/c-cert.pub",)
    assert target.agent == f"{config.home}/agent"
    assert target.identities_only
    assert target.known_hosts[:2] == (f"{config.home}/a", f"{config.home}/b")
    assert target.key_names == ("shop",)


def test_inventory_stands_above(config: Config) -> None:
    text = "User a\nPort 1\nIdentityFile ~/x\nConnectTimeout 1\nProxyJump z\nUserKnownHostsFile ~/k\n"
    target = config.target(
        text, user="b", port=2, identity_file="/key", connect_timeout_s=3.0, jump="none", known_hosts="/k",
        fingerprint="SHA256:x", host_keys=HostKeys.ACCEPT_NEW, retries=5,
    )  # fmt: skip
    assert (target.user, target.port, target.connect_timeout_s, target.hops) == ("b", 2, 3, ())
    assert (target.identity_files, target.identity_source, target.identities_only) == (
        ("/key",),
        "inventory",
        True,
    )
    assert target.known_hosts[0] == "/k"
    assert (target.fingerprint, target.host_keys, target.retries) == ("SHA256:x", HostKeys.ACCEPT_NEW, 5)


def test_json_round_trip(config: Config) -> None:
    target = config.target("Host web01\n ProxyJump a,ops@b:2\n", host_keys=HostKeys.ACCEPT_NEW)
    assert Target.from_json(json.loads(json.dumps(target.to_json()))) == target
    assert hash(replace(target, hops=())) is not None


@pytest.mark.parametrize(
    ("patterns", "hit"),
    [("web01", True), ("WEB01", True), ("web*", True), ("web0?", True), ("* !web01", False), ("!web01 *", False),
     ("db*", False), ("web[01]", False), ("db web01", True)],
)  # fmt: skip
def test_host_patterns(config: Config, patterns: str, hit: bool) -> None:
    assert (config.target(f"Host {patterns}\n User hit\n").user == "hit") == hit


@pytest.mark.parametrize(
    ("criteria", "hit"),
    [
        ("all", True),
        ("host real.example.com", True),
        ("host web01", False),
        ("originalhost web01,db01", True),
        ("!originalhost web01", False),
        ("user deploy", True),
        ("user other", False),
        ("localuser me", True),
        ("host real.* user deploy", True),
        ("host real.* user other", False),
        ("exec true", True),
        ("exec false", False),
        ('exec "test %n,%h,%p,%r,%u = web01,real.example.com,22,deploy,me"', True),
        ("host nothing exec \"touch '%d/ran'\"", False),
        ("final", True),
        ("canonical", False),
        ("tagged x", False),
    ],
)
def test_match(config: Config, criteria: str, hit: bool) -> None:
    text = f"Host web01\n HostName real.example.com\nMatch {criteria}\n HostKeyAlias hit\n"
    assert (config.target(text, user="deploy").host_key_alias == "hit") == hit
    assert bool(config.warnings) == ("tagged" in criteria)
    assert not (config.home / "ran").exists()


def test_include(config: Config) -> None:
    (config.ssh / "conf.d").mkdir()
    (config.ssh / "conf.d" / "a").write_text("Host web01\n User included\n")
    (config.ssh / "conf.d" / "b").write_text("Port 2222\n")
    (config.home / "other").write_text("HostKeyAlias alias\n")
    target = config.target("Include conf.d/*\nInclude ~/other /nowhere/*\nUser later\n")
    assert (target.user, target.port, target.host_key_alias) == ("included", 2222, "alias")


def test_include_within_a_block(config: Config) -> None:
    """What is included counts only where the block does, and the block goes on after it."""
    (config.ssh / "more").write_text("Host *\n User included\n")
    assert config.target("Host db*\n Include more\n Port 1\nHost *\n User other\n").user == "other"
    target = config.target("Host web*\n Include more\n Port 7\n")
    assert (target.user, target.port) == ("included", 7)


def test_include_of_itself(config: Config) -> None:
    with pytest.raises(UsageError, match=r"config:1: files include each other more than 16 deep"):
        config.target("Include config\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("User a\nPort ssh\n", "config:2: 'ssh' is not a number for port"),
        ("Port 70000\n", "config:1: '70000' is not a number for port"),
        ("ConnectTimeout soon\n", "config:1: 'soon' is not a number"),
        ("Host web01\n User\n", "config:2"),
        ('IdentityFile "x\n', "config:1: no closing quotation"),
        ("IdentityFile %Q\n", "config:1: %Q is not known here"),
        ("IdentityFile ${NO_SUCH}/x\n", "config:1: environment variable NO_SUCH is not set"),
        ("Match host\n", "config:1: Match host needs a value"),
        ("ProxyJump @:\n", "one: '@:' is not a jump host"),
    ],
)
def test_mistakes(config: Config, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        config.target(text)
    assert message in caught.value.message
    assert caught.value.exit_code == 2


def test_unreadable_file(config: Config) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        resolve_targets([Host("a", "a", "/x")], config_files=[config.home], environ=config.environ)


def test_jump_chain(config: Config) -> None:
    target = config.target(
        "Host b1\n HostName bastion.example.com\n User ops\n Port 2200\n IdentityFile ~/bkey\n",
        jump="b1,x@[::1]:23",
    )
    assert [hop.endpoint for hop in target.hops] == ["bastion.example.com:2200", "[::1]:23"]
    assert [hop.user for hop in target.hops] == ["ops", "x"]
    assert target.hops[0].identity_files == (f"{config.home}/bkey",)
    assert target.first_hop == "bastion.example.com:2200"


def test_the_way_to_the_first_hop(config: Config) -> None:
    text = "Host outer\n User o\nHost inner\n ProxyJump outer\nHost web01\n ProxyJump inner,last\nHost last\n ProxyJump no\n"
    assert [hop.address for hop in config.target(text).hops] == ["outer", "inner", "last"]
    hops = config.target("Host inner\n ProxyCommand nc %h %p\n", jump="inner").hops
    assert [hop.proxy_command for hop in hops] == ["nc inner 22"]


def test_proxy_command(config: Config) -> None:
    text = (
        "Host web01\n HostName real\n ProxyCommand sh -c 'nc \"%h\" %p; echo %r %n 100%%' # not a comment\n"
    )
    target = config.target(text, user="deploy", port=23)
    assert target.proxy_command == "sh -c 'nc \"real\" 23; echo deploy web01 100%' # not a comment"
    assert config.target("ProxyCommand none\nProxyJump a\n").proxy_command is None


@pytest.mark.parametrize("text", ["ProxyJump none\n", "ProxyJump none\nProxyCommand x\n"])
def test_the_first_of_both_counts(config: Config, text: str) -> None:
    target = config.target(text)
    assert (target.hops, target.proxy_command) == ((), None)


@pytest.mark.parametrize(
    ("line", "agent"),
    [("", "/run/agent"), ("IdentityAgent none", None), ("IdentityAgent SSH_AUTH_SOCK", "/run/agent"),
     ("IdentityAgent $OTHER", "/other"), ("IdentityAgent ~/sock", "{home}/sock")],
)  # fmt: skip
def test_agent(config: Config, line: str, agent: str | None) -> None:
    config.environ |= {"SSH_AUTH_SOCK": "/run/agent", "OTHER": "/other"}
    wanted = agent.format(home=config.home) if agent else None
    assert config.target(line + "\n").agent == wanted


def test_ipv6_literal(config: Config) -> None:
    target = config.target(address="fe80::1", port=2222)
    assert target.endpoint == "[fe80::1]:2222"
    assert target.key_names == ("[fe80::1]:2222", "fe80::1")
