"""Every tool that is compared, and how it does each kind of release.

A way is the command that is measured, and what has to be there before it. None: the tool has no such thing.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.farm import COMPILED, Farm, push_command

GCM = "-c aes128-gcm@openssh.com"


@dataclass(frozen=True)
class Case:
    """What is released: `new`, where `old` was released before if there is one; `changed` are paths in `new`."""

    old: Path | None
    new: Path
    changed: Sequence[str] = ()
    links: str = "copy"


@dataclass(frozen=True)
class Way:
    command: Sequence[str]
    before: Sequence[Sequence[str]] = field(default_factory=tuple)  # not measured
    environ: dict[str, str] = field(default_factory=dict)


class Tool(ABC):
    name = ""
    needs: Sequence[str] = ()

    def __init__(self, farm: Farm, bench_bin: Path) -> None:
        self.farm = farm
        self.bin = bench_bin

    def missing(self) -> list[str]:
        return [each for each in self.needs if shutil.which(each) is None and not (self.bin / each).exists()]

    def lacking(self, module: str, package: str) -> list[str]:
        python = self.bin / "python"
        probe = [str(python), "-c", f"import {module}"]
        if python.exists() and not subprocess.run(probe, check=False, capture_output=True).returncode:
            return []
        return [package]

    @abstractmethod
    def way(self, case: Case) -> Way | None:
        """How it brings the case to all hosts."""

    @property
    def ssh(self) -> str:
        return f"ssh -F {self.farm.config}"

    def unpacked(self, tree: Path, into: str = "{root}") -> list[str]:
        """Bring `tree` to all hosts at once, for what has to be there before."""
        archive = self.farm.base / "before.tar"
        subprocess.run(["tar", "-cf", str(archive), "-C", str(tree), "."], check=True)
        return self.farm.in_parallel(f"{self.ssh} {{host}} 'mkdir -p {into} && tar -x -C {into}'", archive)


class Deployctl(Tool):
    name = "deployctl"

    def push(self, tree: Path, links: str) -> list[str]:
        inventory = self.farm.inventory(**({} if links == "copy" else {"links": links}))
        return push_command(tree, inventory)

    def way(self, case: Case) -> Way:
        before = [self.push(case.old, case.links)] if case.old else ()
        return Way(self.push(case.new, case.links), before, COMPILED)


class Floor(Tool):
    """OpenSSH alone, streaming one archive to tar; the smallest archive that a person could make by hand."""

    name = "ssh + tar"

    def way(self, case: Case) -> Way:
        archive = self.farm.base / "archive.tar"
        if case.old is None:
            packing = f"tar -cf {archive} -C {case.new} ."
            there = self.farm.in_parallel(f"{self.ssh} {{host}} 'tar -x -C {{root}}'", archive)
            return Way(["sh", "-c", f"{packing} && {shlex.join(there)}"])
        names = self.farm.base / "changed"
        names.write_text("".join(f"{name}\n" for name in case.changed))
        packing = (
            f"tar -cf {archive} -C {case.new} -T {names}"
            if case.changed
            else f"tar -cf {archive} -T /dev/null"
        )
        copy = "cp -al" if case.links == "hard" else "cp -a"
        there = self.farm.in_parallel(
            f"{self.ssh} {{host}} '{copy} {{root}}/r1 {{root}}/r2 && tar -x --unlink-first -C {{root}}/r2'",
            archive,
        )
        return Way(["sh", "-c", f"{packing} && {shlex.join(there)}"], [self.unpacked(case.old, "{root}/r1")])


class Scp(Tool):
    name = "scp in parallel"
    needs = ("scp",)

    def way(self, case: Case) -> Way | None:
        if case.old is not None:
            return None
        scp = f"scp -q -r -F {self.farm.config} {GCM} {case.new} {{host}}:{{root}}/"
        return Way(self.farm.in_parallel(scp))


class Rsync(Tool):
    name = "rsync in parallel"
    needs = ("rsync",)
    options = "-a"

    def way(self, case: Case) -> Way | None:
        if case.old is None or not case.changed:
            rsync = f"rsync {self.options} -e '{self.ssh} {GCM}' {case.new}/ {{host}}:{{root}}/r1/"
            return Way(
                self.farm.in_parallel(rsync), [self.unpacked(case.old, "{root}/r1")] if case.old else ()
            )
        rsync = f"rsync {self.options} -e '{self.ssh} {GCM}' --link-dest={{root}}/r1 {case.new}/ {{host}}:{{root}}/r2/"
        return Way(self.farm.in_parallel(rsync), [self.unpacked(case.old, "{root}/r1")])


class RsyncCompressed(Rsync):
    name = "rsync -z in parallel"
    options = "-az"


class RsyncDelta(Rsync):
    """rsync over the old files in place, which is where its algorithm for changed bytes works."""

    name = "rsync in place"

    def way(self, case: Case) -> Way | None:
        if case.old is None:
            return None
        rsync = f"rsync -a -e '{self.ssh} {GCM}' {case.new}/ {{host}}:{{root}}/r1/"
        return Way(self.farm.in_parallel(rsync), [self.unpacked(case.old, "{root}/r1")])


class Walle(Tool):
    """Walle's way: pack, then host after host copy, unpack and link."""

    name = "tar and scp in turn"
    needs = ("scp",)

    def way(self, case: Case) -> Way:
        archive = self.farm.base / "walle.tar.gz"
        steps = [f"tar -czf {archive} -C {case.new} ."]
        for host in self.farm.hosts:
            steps.append(f"scp -q -F {self.farm.config} {archive} {host.name}:{host.root}/")
            unpack = f"mkdir {host.root}/r2 && tar -xzf {host.root}/walle.tar.gz -C {host.root}/r2"
            steps.append(f"{self.ssh} {host.name} '{unpack} && ln -sfn r2 {host.root}/current'")
        return Way(["sh", "-c", " && ".join(steps)])


class Clush(Tool):
    name = "clush"
    needs = ("clush",)

    def command(self, source: str, where: str) -> list[str]:
        names = ",".join(self.farm.names)
        width = str(min(64, len(self.farm.names)))
        options = f"-F {self.farm.config}"
        return ["clush", "-q", "-f", width, "-o", options, "-w", names, "-c", source, "--dest", where]

    def way(self, case: Case) -> Way | None:
        return one_place(self.farm, case, self.command)


class ParallelScp(Tool):
    name = "parallel-scp"
    needs = ("parallel-scp",)

    def command(self, source: str, where: str) -> list[str]:
        hosts = self.farm.base / "pssh_hosts"
        hosts.write_text("".join(f"{name}\n" for name in self.farm.names))
        width = str(min(64, len(self.farm.names)))
        options = ["-x", f"-F {self.farm.config}", "-t", "0", "-p", width]
        return ["parallel-scp", *options, "-r", "-h", str(hosts), source, where]

    def way(self, case: Case) -> Way | None:
        return one_place(self.farm, case, self.command)


def one_place(farm: Farm, case: Case, command: Callable[[str, str], list[str]]) -> Way | None:
    """A copy of the whole tree, or of the one file that changed, for tools that know one destination for all hosts.

    All hosts here share one file system, so every host writes to the same place; each writes all the bytes.
    """
    place = farm.base / "one_place"
    clean = ["sh", "-c", f"rm -rf {place} && mkdir {place}"]
    if case.old is None:
        return Way(command(str(case.new), f"{place}/"), [clean])
    if len(case.changed) != 1:
        return None
    return Way(command(str(case.new / case.changed[0]), f"{place}/file"), [clean])


class Ansible(Tool):
    name = "ansible"
    needs = ("ansible",)

    def way(self, case: Case) -> Way | None:
        inventory = self.farm.base / "ansible_hosts"
        lines = [
            f"{h.name} root={h.root} ansible_python_interpreter={sys.executable}" for h in self.farm.hosts
        ]
        inventory.write_text("\n".join(lines) + "\n")
        archive = self.farm.base / "ansible.tar.gz"
        if case.old is None:
            module, arguments = "unarchive", f"src={archive} dest={{{{ root }}}}"
            packing = f"tar -czf {archive} -C {case.new} . && "
        elif len(case.changed) == 1:
            module, arguments = "copy", f"src={case.new / case.changed[0]} dest={{{{ root }}}}/file"
            packing = ""
        else:
            return None
        width = str(min(50, len(self.farm.hosts)))
        call = [
            str(self.bin / "ansible"),
            "all",
            "-i",
            str(inventory),
            "-f",
            width,
            "-m",
            module,
            "-a",
            arguments,
        ]
        options = f"-F {self.farm.config} -o ControlMaster=auto -o ControlPersist=60s"
        return Way(["sh", "-c", packing + shlex.join(call)], environ={"ANSIBLE_SSH_ARGS": options})


class ParallelSsh(Tool):
    """The library of that name, its native client, copying over SFTP."""

    name = "parallel-ssh"

    def missing(self) -> list[str]:
        return self.lacking("pssh.clients", "parallel-ssh")

    def way(self, case: Case) -> Way | None:
        script = self.farm.base / "pssh_copy.py"
        hosts = [(host.address, host.port, host.user) for host in self.farm.hosts]
        script.write_text(
            "import sys\nfrom gevent import joinall\nfrom pssh.clients import ParallelSSHClient\nfrom pssh.config import HostConfig\n"
            f"hosts = {hosts!r}\n"
            f"config = [HostConfig(user=u, port=p, private_key={str(self.farm.key)!r}) for _, p, u in hosts]\n"
            "client = ParallelSSHClient([a for a, _, _ in hosts], host_config=config, pool_size=100)\n"
            "joinall(client.copy_file(sys.argv[1], sys.argv[2], recurse=True), raise_error=True)\n"
        )
        return one_place(
            self.farm, case, lambda source, where: [str(self.bin / "python"), str(script), source, where]
        )


class Fabric(Tool):
    name = "fabric"

    def missing(self) -> list[str]:
        return self.lacking("fabric", "fabric")

    def way(self, case: Case) -> Way | None:
        script = self.farm.base / "fabric_copy.py"
        hosts = [(host.address, host.port, host.user, str(host.root)) for host in self.farm.hosts]
        archive = self.farm.base / "fabric.tar.gz"
        script.write_text(
            "import sys\nfrom concurrent.futures import ThreadPoolExecutor\nfrom fabric import Connection\n"
            f"hosts = {hosts!r}\n"
            "def one(host):\n"
            "    address, port, user, root = host\n"
            f"    with Connection(address, user=user, port=port, connect_kwargs={{'key_filename': {str(self.farm.key)!r}}}) as c:\n"
            "        c.put(sys.argv[1], root + '/file')\n"
            "        if sys.argv[2] == 'unpack': c.run(f'tar -xzf {root}/file -C {root}', hide=True)\n"
            "with ThreadPoolExecutor(32) as pool: list(pool.map(one, hosts))\n"
        )
        python = str(self.bin / "python")
        if case.old is None:
            packing = f"tar -czf {archive} -C {case.new} ."
            return Way(["sh", "-c", f"{packing} && {python} {script} {archive} unpack"])
        if len(case.changed) != 1:
            return None
        return Way([python, str(script), str(case.new / case.changed[0]), "copy"])


ALL: Sequence[type[Tool]] = (
    Deployctl,
    Floor,
    Scp,
    Rsync,
    RsyncCompressed,
    RsyncDelta,
    Walle,
    Clush,
    ParallelScp,
    Ansible,
    ParallelSsh,
    Fabric,
)
