"""One host: connection, upload, remote commands; what one worker does for it."""

import importlib.util
import sys


def _load_when_used(name: str) -> None:
    """Let `import name` cost nothing until something of it is used."""
    spec = importlib.util.find_spec(name)
    if name in sys.modules or spec is None or spec.loader is None:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


# paramiko needs it for `Match exec` in an ssh config alone; it took a third of the time of importing paramiko.
_load_when_used("invoke")
