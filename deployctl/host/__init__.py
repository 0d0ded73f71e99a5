"""One host: connection, upload, remote commands; what one worker does for it."""

import importlib
import importlib.util
import sys
import types
from typing import Any


class _Later(types.ModuleType):
    """A module that is loaded when something of it is used; importlib's own lazy loader is woken by a plain `import`."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _load_when_used(name: str) -> None:
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is not None:
        sys.modules[name] = module = _Later(name)
        module.__spec__, module.__path__ = spec, spec.submodule_search_locations or []


# paramiko needs it for `Match exec` in an ssh config alone; it took a third of the time of importing paramiko.
_load_when_used("invoke")
