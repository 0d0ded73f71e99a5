"""Prepared once in the parent, used in a forked worker: what the whole design rests on."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from deployctl.host.knownhosts import KnownHosts
from tests.host.kit import Kit, ask, to
from tests.support.agent import SshAgent
from tests.support.keys import make_key
from tests.support.sshd import SshdFarm

pytestmark = pytest.mark.sshd


def test_workers_use_what_the_parent_prepared(sshd_farm: SshdFarm, kit: Kit, tmp_path: Path) -> None:
    plain, locked = make_key(tmp_path / "plain"), make_key(tmp_path / "locked", passphrase="secret")
    hosts = [sshd_farm(authorized=[plain.public]), sshd_farm(authorized=[locked.public])]
    kit.knows(*hosts)
    with SshAgent(tmp_path) as agent:
        agent.add(plain.path)
        kit.environ["SSH_AUTH_SOCK"] = str(agent.socket)
        targets = []
        for host, key in zip(hosts, (plain, locked), strict=True):
            kit.identity = key.path
            targets.append(kit.target(**to(host)))
        prepared = [kit.credentials(target, ask=lambda _: "secret") for target in targets]
        assert KnownHosts.load(targets).warnings == []
        assert set(threading.enumerate()) <= kit.threads
        children = []
        for target, credentials in zip(targets, prepared, strict=True):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    with kit.open(target, credentials=credentials) as connection:
                        status = 0 if ask(connection, "echo in") == "in\n" else 2
                finally:
                    os._exit(status)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
