"""The server's own process: has every module of deployctl imported, and forks a process for each run. Run by `warm`.

Takes one JSON object a message on the descriptor that it is given, with the run's standard streams and a socket of its own. That is told the
number of the process, and at its end the exit code as `subprocess` has it. Ends with its parent.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import socket
import sys
from pathlib import Path
from typing import Any

MESSAGE_BYTES = 1 << 20
THIRD = (
    "ClusterShell.NodeSet",
    "rich.console",
    "rich.live",
    "rich.table",
    "scp",
    "setproctitle",
    "zstandard",
)


def import_all() -> None:
    import deployctl

    for module in pkgutil.walk_packages(deployctl.__path__, "deployctl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in THIRD:
        importlib.import_module(name)
    # It finds its place in memory at the first call, and no more once the environment is another.
    importlib.import_module("setproctitle").getproctitle()


def serve(orders: socket.socket) -> dict[str, Any]:
    """Return, in each forked process, what it shall run; never returns in the server."""
    ends: dict[int, tuple[int, socket.socket]] = {}  # by pidfd
    while True:
        for ready in select.select([orders.fileno(), *ends], [], [])[0]:
            if ready in ends:
                tell_end(ready, *ends.pop(ready))
                continue
            message, descriptors, _, _ = socket.recv_fds(orders, MESSAGE_BYTES, 4)
            if not message:
                os._exit(0)
            pid = os.fork()
            if pid == 0:
                for number in range(3):
                    os.dup2(descriptors[number], number)
                for each in (orders, *(told for _, told in ends.values())):
                    each.detach()
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                run: dict[str, Any] = json.loads(message)
                return run
            for number in range(3):
                os.close(descriptors[number])
            told = socket.socket(fileno=descriptors[3])
            told.send(str(pid).encode())
            ends[os.pidfd_open(pid)] = (pid, told)


def tell_end(pidfd: int, pid: int, told: socket.socket) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(pidfd)
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
        told.send(str(code).encode())
    told.close()


def become(run: dict[str, Any]) -> None:
    """Be the process that exec would have made."""
    os.setsid()
    os.chdir(run["cwd"])
    os.umask(run["umask"])
    os.environ.clear()
    os.environ.update(run["env"])
    sys.path[0] = run["cwd"]
    sys.argv = ["", *run["arguments"]]  # the first is put there by runpy, as by `python -m`


def main() -> None:
    sys.path[0] = str(Path.cwd())
    import_all()
    gc.collect()
    gc.freeze()
    become(serve(socket.socket(fileno=int(sys.argv[1]))))
    runpy.run_module("deployctl", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
