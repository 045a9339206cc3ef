"""The one error that a user can mend, and the sentence for a name that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """What was expected, what came, and the way out, in one line; the command line prints it without a traceback."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Make the error for a name outside a vocabulary, naming its nearest neighbours.

    Args:
        kind: What the name was meant to be: "word", "answer", "class", "layer".
        name: What the user gave.
        known: Every name that would have been right.

    Returns:
        The error, to be raised by the caller.
    """
    names = sorted(set(known))
    near = get_close_matches(name, names, n=4, cutoff=0.5)
    listed = ", ".join(map(repr, near or names[:8]))
    hint = f"did you mean {listed}?" if near else f"known ones are {listed}"
    more = f" ({len(names)} in all)" if not near and len(names) > 8 else ""
    return UserError(f"unknown {kind} {name!r}: {hint}{more}")
