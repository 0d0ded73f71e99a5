"""From groups to hosts: ranges, layers, one host in several groups, duplicates."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployctl.inventory import load_inventory
from deployctl.model import Host, HostKeys, Var
from tests.inventory.files import HEAD, SMALL, inside, load, problems


def test_the_smallest_inventory(tmp_path: Path) -> None:
    inventory = load(tmp_path, SMALL)
    assert (inventory.file, inventory.app, inventory.path) == (Path("hosts.yaml"), "shop", "/srv/shop")
    assert inventory.hosts == (Host(name="web01", address="web01", path="/srv/shop", groups=("web",)),)
    assert dict(inventory.groups) == {"web": ("web01",)}
    assert inventory.warnings == ()
    release = inventory.release
    assert (release.keep, release.links, release.exclude, release.check) == (5, "copy", (), ())
    assert dict(release.hooks) == dict.fromkeys(
        ("build", "staged", "activating", "activated", "released", "failed"), ()
    )


def test_host_wins_over_group_and_group_over_top(tmp_path: Path) -> None:
    inventory = load(
        tmp_path,
        """\
        app: shop
        path: /srv/{app}/{host}
        ssh:
          user: deploy
          port: 22
          identity_file: ~/.ssh/id
          known_hosts: ~/.ssh/known
          host_keys: accept-new
          jump: "ops@bastion:22, [::1]:2022"
          connect_timeout: 10s
          retries: 3
        vars: {A: top, B: top, C: top}
        groups:
          web:
            hosts:
              - web[09-10].example.com
              - {name: web21, address: "[2001:db8::1]", port: 2222, user: me, path: /opt//x/, vars: {C: host}}
            ssh: {user: www, retries: 0}
            path: /srv/web
            vars: {B: group, C: group}
          jobs:
            hosts: [job01]
        """,
    )
    first, second, web21, job = inventory.hosts
    assert [first.name, second.name] == ["web09.example.com", "web10.example.com"]
    assert second == Host(
        name="web10.example.com",
        address="web10.example.com",
        path="/srv/web",
        port=22,
        user="www",
        identity_file="/home/me/.ssh/id",
        known_hosts="/home/me/.ssh/known",
        host_keys=HostKeys.ACCEPT_NEW,
        jump="ops@bastion:22,[::1]:2022",
        connect_timeout_s=10.0,
        retries=0,
        groups=("web",),
        vars={"A": Var("top"), "B": Var("group"), "C": Var("group")},
    )
    assert (web21.address, web21.port, web21.user, web21.path) == ("2001:db8::1", 2222, "me", "/opt/x")
    assert web21.vars["C"] == Var("host")
    assert (job.path, job.user, job.vars["B"]) == ("/srv/shop/job01", "deploy", Var("top"))


def test_a_range_in_a_mapping_gives_its_settings_to_every_host(tmp_path: Path) -> None:
    inventory = load(tmp_path, HEAD + "groups: {web: {hosts: [{name: 'w[1-2]', port: 2222}]}}\n")
    assert [(host.name, host.port) for host in inventory.hosts] == [("w1", 2222), ("w2", 2222)]


def test_variables_stay_as_they_are_written(tmp_path: Path) -> None:
    inventory = load(
        tmp_path,
        SMALL
        + """
vars:
  A: 010
  B: 1.50
  C: yes
  D: 2024-01-01
  E: {value: 0x1F, secret: true}
  F: {env: NAME, secret: true}
  G: ""
  H: 12:30
  value: 1_000
  vars: {value: true, secret: true}
""",
    )
    assert inventory.hosts[0].vars == {
        "A": Var("010"),
        "B": Var("1.50"),
        "C": Var("yes"),
        "D": Var("2024-01-01"),
        "E": Var("0x1F", secret=True),
        "F": Var(env="NAME", secret=True),
        "G": Var(""),
        "H": Var("12:30"),
        "value": Var("1_000"),
        "vars": Var("true", secret=True),
    }


def test_a_host_in_two_groups_is_one_host(tmp_path: Path) -> None:
    inventory = load(
        tmp_path,
        HEAD
        + """\
groups:
  jobs:
    hosts: [b, {name: a, port: 2222}]
    ssh: {user: me}
  web:
    hosts: [a, c, {name: b, user: you}]
    vars: {X: 1}
""",
    )
    b, a, c = inventory.hosts
    assert (a.name, a.groups, a.port, a.user, dict(a.vars)) == (
        "a",
        ("jobs", "web"),
        2222,
        "me",
        {"X": Var("1")},
    )
    assert (b.name, b.groups, b.user) == ("b", ("jobs", "web"), "you")
    assert (c.name, c.groups, c.user) == ("c", ("web",), None)
    assert dict(inventory.groups) == {"jobs": ("b", "a"), "web": ("a", "c", "b")}


def test_groups_that_disagree_about_a_host_are_a_mistake(tmp_path: Path) -> None:
    text = (
        HEAD
        + """\
groups:
  a:
    hosts: ["w[1-3]", x]
    ssh: {user: one, port: 22}
    vars: {S: {value: hunter2, secret: true}}
  b:
    hosts: ["w[2-4]", {name: x, user: own, vars: {S: own}}]
    ssh: {user: two, port: 22}
    path: /else
    vars: {S: {value: hunter3, secret: true}}
"""
    )
    assert problems(tmp_path, text) == [
        "10:11: groups.b.ssh.user: differs from groups.a.ssh.user (line 6), and w[2-3] are in both",
        "12:12: groups.b.vars.S: differs from groups.a.vars.S (line 7), and w[2-3] are in both",
    ]


def test_entries_of_one_host_that_disagree_are_a_mistake(tmp_path: Path) -> None:
    text = HEAD + "groups:\n  a: {hosts: [{name: x, port: 1}]}\n  b: {hosts: [{name: x, port: 2}]}\n"
    assert problems(tmp_path, text) == [
        "5:25: groups.b.hosts[0].port: differs from groups.a.hosts[0].port (line 4), and x is in both"
    ]


def test_a_host_twice_in_a_group_is_told_with_both_lines(tmp_path: Path) -> None:
    text = HEAD + "groups:\n  a:\n    hosts:\n      - w[1-3]\n      - w[2-5]\n      - {name: w1, port: 7}\n"
    assert problems(tmp_path, text) == [
        "7:9: groups.a.hosts[1]: w[2-3] are in this group already (line 6)",
        "8:9: groups.a.hosts[2]: w1 is in this group already (line 6)",
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{name: a, address: h}", "{name: b, address: H.}"),
        ("{name: a, address: h}", "{name: b, address: h, port: 22}"),
        ("a", "{name: b, address: a}"),
        ("'::1'", "{name: b, address: '0:0::1'}"),
        ("{name: a, address: h, path: /x}", "{name: b, address: h, path: /x/}"),
    ],
)
def test_two_names_for_one_target_are_told_with_both_lines(tmp_path: Path, one: str, other: str) -> None:
    (line,) = problems(tmp_path, HEAD + f"groups:\n  g:\n    hosts:\n      - {one}\n      - {other}\n")
    name = "::1" if "::1" in one else "a"
    assert line == f"7:9: groups.g.hosts[1]: b has the address, port and path of {name} (line 6)"


@pytest.mark.parametrize("other", ["{name: b, address: h, port: 23}", "{name: b, address: h, path: /else}"])
def test_one_address_with_another_port_or_path_is_another_host(tmp_path: Path, other: str) -> None:
    inventory = load(tmp_path, HEAD + f"groups: {{g: {{hosts: [{{name: a, address: h}}, {other}]}}}}\n")
    assert len(inventory.hosts) == 2


def test_many_hosts_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    groups = "".join(f"  g{index}: *all\n" for index in range(90))
    text = "x-all: &all {hosts: ['a[1-9999]']}\n" + HEAD + "groups:\n" + groups
    assert problems(tmp_path, text) == [
        "1:22: groups.g5.hosts[0]: more than 50,000 hosts up to here, counted in each of their groups"
    ]


def test_home_comes_from_the_process_unless_given(tmp_path: Path) -> None:
    (tmp_path / "hosts.yaml").write_text(
        SMALL + "ssh: {identity_file: ~/.ssh/id, known_hosts: ~nobody-here/k}\n"
    )
    with inside(tmp_path):
        (host,) = load_inventory("hosts.yaml").hosts
    assert host.identity_file == os.path.expanduser("~/.ssh/id")  # noqa: PTH111 - as the loader does
    assert host.known_hosts == "~nobody-here/k"


def test_the_release_section(tmp_path: Path) -> None:
    inventory = load(
        tmp_path,
        SMALL
        + """
release:
  keep: 3
  links: hard
  exclude: [".git/", "*.log"]
  shared: {dirs: [storage/, ./var//x], files: [.env]}
  hooks:
    build: ["make"]
    staged: [{run: "a\\nb", timeout: 60s, once: true, groups: [web]}]
  check:
    url: http://{address}:8080/{app}/{release}?h={host}
    from: host
    expect: 204
    text: ok
    timeout: 500ms
    interval: 2
""",
    )
    release = inventory.release
    assert (release.keep, release.links, release.exclude) == (3, "hard", (".git/", "*.log"))
    assert tuple(release.shared) == ("storage", "var/x", ".env")
    (build,) = release.hooks["build"]
    (staged,) = release.hooks["staged"]
    assert (build.run, build.timeout_s, build.once, build.groups) == ("make", None, False, ())
    assert (staged.run, staged.timeout_s, staged.once, staged.groups) == ("a\nb", 60.0, True, ("web",))
    (check,) = release.check
    assert (check.run, check.from_, check.expect, check.text) == (None, "host", 204, "ok")
    assert (check.timeout_s, check.interval_s) == (0.5, 2.0)
    six = Host(name="web01", address="::1", path="/srv")
    assert check.url_for(six, app="shop", release="R") == "http://[::1]:8080/shop/R?h=web01"


def test_checks_may_be_a_list(tmp_path: Path) -> None:
    checks = load(tmp_path, SMALL + "release: {check: [{url: http://x/}, {run: ./test}]}\n").release.check
    assert [(check.url, check.run) for check in checks] == [("http://x/", None), (None, "./test")]
    assert (checks[0].from_, checks[0].expect, checks[0].timeout_s, checks[0].interval_s) == (
        "here",
        200,
        30,
        1,
    )
    with pytest.raises(ValueError, match="has no URL"):
        checks[1].url_for(Host(name="a", address="a", path="/"), app="x", release="R")
