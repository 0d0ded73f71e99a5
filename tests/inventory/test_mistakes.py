"""Every mistake in a file is told in one report, each with its exact line."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from tests.inventory.files import HEAD, SMALL, load, problems

HOST = "use letters, digits, '.', '_', '-' (not first), or an IPv6 address"


def test_everything_wrong_in_a_file_is_one_report_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
        app: 1
        path: srv
        groups:
          web:
            hosts: web01
            pth: /x
        ssh:
          prot: 22
          host_keys: strikt
          port: 022
          user: no
          connect_timeout: 1:30
          retries: "2"
        relase: {}
        user: x
        hosts: [a]
        """
    assert problems(tmp_path, text) == [
        "1:6: app: must be text, not the number '1'; put it in quotes: '1'",
        "2:7: path: 'srv' must be absolute: begin with /",
        "5:12: groups.web.hosts: must be a list, not text; write each entry on a line of its own after '- '",
        "6:5: groups.web.pth: unknown key (did you mean 'path'?)",
        "8:3: ssh.prot: unknown key (did you mean 'port'?)",
        "9:14: ssh.host_keys: must be strict or accept-new (did you mean 'strict'?)",
        "10:9: ssh.port: 022 is octal in YAML; write it without leading zeros, or in quotes for text: '022'",
        "11:9: ssh.user: must be text, not the boolean 'no'; put it in quotes: 'no'",
        "12:20: ssh.connect_timeout: 1:30 is a number of base 60 in YAML; put it in quotes: '1:30'",
        "13:12: ssh.retries: must be a whole number, not text; write it without quotes",
        "14:1: relase: unknown key (did you mean 'release'?)",
        "15:1: user: unknown key here; it belongs under 'ssh'",
        "16:1: hosts: unknown key here; it belongs in a group: groups.NAME.hosts",
    ]


def test_what_is_missing_is_told_where_it_should_stand(tmp_path: Path) -> None:
    assert problems(tmp_path, "ssh:\n  user:\ngroups:\n  web: {}\n") == [
        "1:1: app: is missing",
        "1:1: path: is missing",
        "2:3: ssh.user: has no value; give it one or leave the key out",
        "4:3: groups.web.hosts: is missing",
    ]


def test_no_host_at_all_is_a_mistake(tmp_path: Path) -> None:
    assert problems(tmp_path, HEAD + "groups: {web: {hosts: []}}\n") == ["3:1: groups: holds no host"]
    assert problems(tmp_path, HEAD + "groups: {}\n") == ["3:1: groups: holds no host"]


TOP = {
    "app: Shop": (
        "1:6: app: 'Shop' is not a name of an app: use a-z, 0-9 and -, and begin with a letter or digit"
    ),
    "path: /": "1:7: path: must not be / itself",
    "path: //./": "1:7: path: must not be / itself",
    "path: /srv/../etc": "1:7: path: '/srv/../etc' must not hold '..'",
    "path: ~/shop": "1:7: path: '~/shop' must be absolute; ~ is not filled in here",
    'path: "/srv/a\\nb"': "1:7: path: holds a control character or a line break",
    'path: ""': "1:7: path: is empty",
    "path: /srv/{hsot}": (
        "1:7: path: unknown placeholder '{hsot}' (did you mean '{host}'?); known are {host}, {app}"
    ),
    "path: /srv/{release}": "1:7: path: unknown placeholder '{release}'; known are {host}, {app}",
    "path: [a]": "1:7: path: must be text, not a list; a text that begins with { or [ needs quotes",
    "ssh: deploy": "1:6: ssh: must be a mapping, not text",
    "ssh: {user: -l}": "1:13: ssh.user: '-l' is not a user: use letters, digits, '.', '_' and '-' (not first)",
    "ssh: {user: a b}": "1:13: ssh.user: 'a b' is not a user: use letters, digits, '.', '_' and '-' (not first)",
    "ssh: {port: 0}": "1:13: ssh.port: is not a port; ports go from 1 to 65535",
    "ssh: {port: 65536}": "1:13: ssh.port: is not a port; ports go from 1 to 65535",
    "ssh: {port: 2.5}": "1:13: ssh.port: must be a whole number, not the number '2.5'",
    "ssh: {port: 0x16}": (
        "1:13: ssh.port: 0x16 is no plain number in YAML; write it without leading zeros, or in quotes for text: '0x16'"
    ),
    f"ssh: {{port: {'9' * 30}}}": "1:13: ssh.port: is too large a number",
    f"ssh: {{port: {'9' * 5000}}}": "1:13: ssh.port: is too long for a number",
    "ssh: {retries: -1}": "1:16: ssh.retries: must be at least 0",
    "ssh: {connect_timeout: soon}": (
        "1:24: ssh.connect_timeout: 'soon' is not a duration; write it like 500ms, 10s, 5m or 1h"
    ),
    "ssh: {connect_timeout: 0}": "1:24: ssh.connect_timeout: must be longer than nothing",
    "ssh: {connect_timeout: .inf}": (
        "1:24: ssh.connect_timeout: 'inf' is not a duration; write it like 500ms, 10s, 5m or 1h"
    ),
    "ssh: {connect_timeout: true}": "1:24: ssh.connect_timeout: must be a duration like 500ms, 10s, 5m or 1h",
    'ssh: {identity_file: "a\\nb"}': "1:22: ssh.identity_file: holds a control character or a line break",
    'ssh: {jump: "-oProxyCommand=x"}': (
        "1:13: ssh.jump: '-oProxyCommand=x' is not a jump host; write it like ops@bastion.example.com:22"
    ),
    'ssh: {jump: "a,b:x"}': "1:13: ssh.jump: 'b:x' is not a jump host; write it like ops@bastion.example.com:22",
    'ssh: {jump: "a:70000"}': "1:13: ssh.jump: is not a port; ports go from 1 to 65535",
    'ssh: {jump: "[::zz]:1"}': (
        "1:13: ssh.jump: '[::zz]:1' is not a jump host; write it like ops@bastion.example.com:22"
    ),
    "vars: {A B: 1}": (
        "1:8: vars.'A B': can't name a variable: use letters, digits and '_', and don't begin with a digit"
    ),
    "vars: {DEPLOYCTL_HOST: x}": (
        "1:8: vars.DEPLOYCTL_HOST: names that begin with DEPLOYCTL_ are set by deployctl"
    ),
    "vars: {A: {env: B, value: c}}": "1:11: vars.A: has both 'value' and 'env'",
    "vars: {A: {secret: true}}": "1:11: vars.A: needs either 'value' or 'env'",
    "vars: {A: [hunter2]}": (
        "1:11: vars.A: must be text or a mapping, not a list; a text that begins with { or [ needs quotes"
    ),
    "vars: {A: {value: hunter2, secret: maybe}}": "1:36: vars.A.secret: must be true or false, not text",
    'vars: {A: "a\\0b"}': "1:11: vars.A: holds a NUL character",
    'vars: {A: "\\ud800"}': "1:11: vars.A: holds half of a surrogate pair, which is no character",
}


@pytest.mark.parametrize("line", TOP)
def test_mistakes_at_the_top(tmp_path: Path, line: str) -> None:
    key = line.partition(":")[0]
    rest = "".join(other for other in SMALL.splitlines(keepends=True) if not other.startswith(f"{key}:"))
    assert problems(tmp_path, f"{line}\n{rest}") == [TOP[line]]


ITEMS = {
    "10": "must be text or a mapping, not the number '10'; put it in quotes: '10'",
    "yes": "must be text or a mapping, not the boolean 'yes'; put it in quotes: 'yes'",
    "web01:22": "'web01:22' is not a host; write the port apart: {name: web01, port: 22}",
    '"[::1]:22"': "'[::1]:22' is not a host; write the port apart: {name: [::1], port: 22}",
    '"-oProxyCommand=x"': f"'-oProxyCommand=x' is not a host: {HOST}",
    '"a;b"': f"'a;b' is not a host: {HOST}",
    '"a\\nb"': f"'a\\nb' is not a host: {HOST}",
    '".."': f"'..' is not a host: {HOST}",
    '"~"': f"'~' is not a host: {HOST}",
    '"a["': f"'a[' is not a host: {HOST}",
    '"fe80::1%eth0"': "'fe80::1%eth0': an address with a zone is not possible",
    "u@h": "'u@h' is not a host; write the login as 'user'",
    '"@web"': "'@web' is not a host; groups can't hold groups",
    '"@web[1-2]"': f"'@web[1-2]' is not a host: {HOST}",
    "a[1-999999999]": "'a[1-999999999]' is 999,999,999 hosts; at most 10,000 are possible",
    "a[01-3]": "'a[01-3]': pad both ends of a range to the same width",
    "a[3-1]": "'a[3-1]': a range counts upwards",
    "a[1-x]": "'a[1-x]' is not a range; write it like web[01-20] or web[1,3,7-9]",
    "a[[1]]": "'a[[1]]' has a bracket without its other half",
    '"a[1-3,2]"': "'a[1-3,2]' names a host twice",
}


@pytest.mark.parametrize("item", ITEMS)
def test_mistakes_in_a_host(tmp_path: Path, item: str) -> None:
    found = problems(tmp_path, HEAD + f"groups:\n  web:\n    hosts:\n      - ok\n      - {item}\n")
    assert found == [f"7:9: groups.web.hosts[1]: {ITEMS[item]}"]


MAPPINGS = {
    "{port: 22}": "7:9: groups.web.hosts[1].name: is missing",
    "{name: a, prot: 22}": "7:19: groups.web.hosts[1].prot: unknown key (did you mean 'port'?)",
    "{name: a, retries: 1}": (
        "7:19: groups.web.hosts[1].retries: unknown key; known are"
        " name, address, port, user, identity_file, jump, fingerprint, path, vars"
    ),
    '{name: "a[1-2]", address: b}': (
        "7:26: groups.web.hosts[1].address: can't be the same for 2 hosts; give each its own entry"
    ),
    "{name: a, fingerprint: 'MD5:aa:bb'}": (
        "7:32: groups.web.hosts[1].fingerprint: MD5 is not enough; write SHA256: and 43 characters,"
        " as 'ssh-keygen -lf KEY.pub' prints it"
    ),
    "{name: a, address: 'a[1-2]'}": f"7:28: groups.web.hosts[1].address: 'a[1-2]' is not a host: {HOST}",
    "{name: 'b[1-3,2]'}": "7:16: groups.web.hosts[1].name: 'b[1-3,2]' names a host twice",
}


@pytest.mark.parametrize("item", MAPPINGS)
def test_mistakes_in_a_host_mapping(tmp_path: Path, item: str) -> None:
    found = problems(tmp_path, HEAD + f"groups:\n  web:\n    hosts:\n      - ok\n      - {item}\n")
    assert found == [MAPPINGS[item]]


@pytest.mark.parametrize("name", ["all", "-x", "a b"])
def test_names_that_no_group_can_have(tmp_path: Path, name: str) -> None:
    (line,) = problems(tmp_path, HEAD + f"groups:\n  '{name}': {{hosts: [a]}}\n")
    assert f"'{name}' can't name a group" in line
    assert line.startswith("4:3: groups.")


RELEASE = {
    "keep: 0": "2:9: release.keep: must be at least 1",
    "links: hrad": "2:10: release.links: must be copy or hard (did you mean 'hard'?)",
    "exclude: '*.log'": (
        "2:12: release.exclude: must be a list, not text; write each entry on a line of its own after '- '"
    ),
    "shared: {dirs: [a, a/b]}": "2:22: release.shared.dirs[1]: 'a/b' lies in 'a' (line 2)",
    "shared: {dirs: [a], files: [a]}": "2:31: release.shared.files[0]: 'a' is there already (line 2)",
    "shared: {dirs: [a/, ./a]}": "2:23: release.shared.dirs[1]: './a' is there already (line 2)",
    "shared: {dirs: [/a]}": "2:19: release.shared.dirs[0]: '/a' must be relative to the release",
    "shared: {dirs: [../a]}": "2:19: release.shared.dirs[0]: '../a' must not hold '..'",
    "shared: {dirs: [.]}": "2:19: release.shared.dirs[0]: '.' is the release itself",
    "hooks: {biuld: [x]}": "2:11: release.hooks.biuld: unknown key (did you mean 'build'?)",
    "hooks: {build: x}": (
        "2:18: release.hooks.build: must be a list, not text; write each entry on a line of its own after '- '"
    ),
    "hooks: {staged: [{}]}": "2:20: release.hooks.staged[0].run: is missing",
    'hooks: {staged: [""]}': "2:20: release.hooks.staged[0]: is empty",
    "hooks: {staged: [{run: x, groups: [wbe]}]}": (
        "2:38: release.hooks.staged[0].groups[0]: no group 'wbe' (did you mean 'web'?)"
    ),
    "hooks: {staged: [{run: x, groups: []}]}": (
        "2:37: release.hooks.staged[0].groups: names no group; leave it out to run on every host"
    ),
    "hooks: {build: [{run: x, groups: [web]}]}": (
        "2:28: release.hooks.build[0].groups: a build hook runs here, not on hosts;"
        " groups are for staged, activating and activated"
    ),
    "check: {}": "2:3: release.check: a check needs 'url' or 'run'",
    "check: [{timeout: 1s}]": "2:11: release.check[0]: a check needs 'url' or 'run'",
    "check: {url: http://x, run: x}": "2:26: release.check.run: a check has either 'url' or 'run', not both",
    "check: [{run: x, expect: 200}]": "2:20: release.check[0].expect: is for a check with 'url'",
    "check: {url: 'http://{hots}/'}": (
        "2:16: release.check.url: unknown placeholder '{hots}' (did you mean '{host}'?);"
        " known are {host}, {address}, {app}, {release}"
    ),
    "check: {url: ftp://x}": (
        "2:16: release.check.url: must be a URL like http://{address}:8080/healthz, without a login in it"
    ),
    "check: {url: 'http://u:p@x/'}": (
        "2:16: release.check.url: must be a URL like http://{address}:8080/healthz, without a login in it"
    ),
    "check: {url: http://x, from: there}": "2:32: release.check.from: must be here or host (did you mean 'here'?)",
    "check: {url: http://x, form: here}": "2:26: release.check.form: unknown key (did you mean 'from'?)",
    "check: {url: http://x, expect: 99}": "2:34: release.check.expect: must be at least 100",
    "check: curl": (
        "2:10: release.check: must be a list, not text; write each entry on a line of its own after '- '"
    ),
}


@pytest.mark.parametrize("line", RELEASE)
def test_mistakes_in_the_release_section(tmp_path: Path, line: str) -> None:
    assert problems(tmp_path, f"release:\n  {line}\n{SMALL}") == [RELEASE[line]]


def test_values_of_variables_are_in_no_message(tmp_path: Path) -> None:
    text = SMALL + dedent(
        """\
        vars:
          A: [hunter2]
          B: {value: {x: hunter2}}
          C: {value: hunter2, env: D}
          E: {vaule: hunter2}
          F: {env: hunter-2}
        ssh: {jump: [hunter2]}
        """
    )
    assert "hunter" not in "".join(problems(tmp_path, text))


def test_what_is_odd_but_allowed_is_a_warning(tmp_path: Path) -> None:
    inventory = load(tmp_path, HEAD + "groups:\n  web: {hosts: [jobs]}\n  jobs: {hosts: []}\n")
    assert inventory.warnings == (
        "hosts.yaml:5:3: groups.jobs: holds no host",
        "hosts.yaml:5:3: groups.jobs: is the name of a host as well; --limit takes it as the group",
    )
