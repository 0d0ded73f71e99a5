"""The variables of a host as text: for hooks, for masking, for showing.

Owns where a value comes from and that a secret one is never shown; refuses to know hooks and outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from deployctl.errors import InventoryError
from deployctl.model import Host, Var

HIDDEN = "***"


def resolve_vars(host: Host, environ: Mapping[str, str]) -> dict[str, str]:
    """The host's variables as text for the environment of hooks, in the order of the inventory.

    InventoryError names every variable that `environ` lacks or that is no UTF-8; it never repeats a value.
    """
    values: dict[str, str] = {}
    problems: list[str] = []
    for name, var in host.vars.items():
        value = var.value if var.env is None else environ.get(var.env)
        if value is None:
            problems.append(f"{host.name}: vars.{name}: the environment variable {var.env} is not set")
        elif any("\ud800" <= character <= "\udfff" for character in value):
            problems.append(f"{host.name}: vars.{name}: the environment variable {var.env} is not UTF-8")
        else:
            values[name] = value
    if problems:
        raise InventoryError(
            problems, hint="set it where deployctl runs, or give the variable a value of its own"
        )
    return values


def secret_values(hosts: Iterable[Host], environ: Mapping[str, str]) -> frozenset[str]:
    """Every text that must not be printed: values of secret variables, and the lines of those that have several.

    Variables that `environ` lacks are left out, and so are empty texts.
    """
    found: set[str] = set()
    for var in {var for host in hosts for var in host.vars.values() if var.secret}:
        value = var.value if var.env is None else environ.get(var.env)
        if value and value.strip():
            # Output comes line by line, where a key of several lines would never be seen whole.
            found.update([value, *(line.strip() for line in value.splitlines() if line.strip())])
    return frozenset(found)


def shown(var: Var) -> str:
    """How a variable is displayed: `$NAME` for one from the environment, `***` for a secret, else its value."""
    if var.env is not None:
        return f"${var.env}"
    return HIDDEN if var.secret else var.value or ""
