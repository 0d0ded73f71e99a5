"""What all hosts of a run have in common, and what has to be asked for before any worker is forked."""

from __future__ import annotations

from collections.abc import Sequence

from deployctl.host.credentials import prepare_credentials
from deployctl.host.knownhosts import KnownHosts
from deployctl.host.session import Site
from deployctl.host.target import resolve_targets
from deployctl.inventory import Inventory, resolve_vars, secret_values
from deployctl.model import Host
from deployctl.release.events import Events
from deployctl.release.options import FORKS, Options


def make_site(
    inventory: Inventory, hosts: Sequence[Host], options: Options, events: Events, *, hooked: bool
) -> Site:
    """Return what the hosts have in common, once the user was asked for what is missing; warnings are notes in `events`."""
    warnings = list(inventory.warnings)
    targets = resolve_targets(hosts, environ=options.environ, warn=warnings)
    credentials = prepare_credentials(
        targets, environ=options.environ, ask=options.ask, ask_pass=options.ask_pass
    )
    known_hosts = KnownHosts.load(targets)
    for warning in (*warnings, *credentials.warnings, *known_hosts.warnings):
        events.note("warning", warning)
    return Site(
        run=events.run,
        targets={target.name: target for target in targets},
        roots={host.name: host.path for host in hosts},
        credentials=credentials,
        known_hosts=known_hosts,
        shared=inventory.release.shared,
        timeout_s=options.timeout_s,
        environments={host.name: resolve_vars(host, options.environ) for host in hosts} if hooked else {},
        secrets=tuple(secret_values(hosts, options.environ)),
        # Until a worker is told its share, it sends as if all of them did.
        rate_bytes_s=rate / min(options.forks or FORKS, len(hosts))
        if (rate := options.limit_rate_bytes_s)
        else None,
        debug=options.debug,
    )
