"""Pickles that would do harm if anything in them were run: each would write a file."""

import os
import pickle
from types import ModuleType


class Attack:
    """Pickled as a call of a function that is not on any list."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(path):
    """Ways to run something, with the name that must be told."""
    return {
        "system": (Attack(os.system, f"touch {path}"), f"{os.name}.system"),
        "eval": (Attack(eval, f"open({str(path)!r}, 'w')"), "builtins.eval"),
        "open": (Attack(open, str(path), "w"), "_io.open" if open.__module__ == "_io" else "io.open"),
        "getattr": (Attack(getattr, os, "system"), "builtins.getattr"),
    }


def protocol_0(path):
    """The same by hand, as Python 2 would have written it."""
    return f"(dp0\nS'x'\nccommands\ngetoutput\n(S'touch {path}'\ntRs.".encode()


class Modules(pickle.Pickler):
    """Lets `getattr(os, …)` be pickled: modules go by their import."""

    def reducer_override(self, value):
        if isinstance(value, ModuleType):
            return __import__, (value.__name__,)
        return NotImplemented
