"""Mistakes of the user that a part notices only while it runs, such as a length that it cannot cut.

Parts are made once with a placeholder vocabulary to check their options, so what depends on the
text is noticed when the part is made for the run, or used. Like the constructor, a method reports
such a mistake as a `ValueError`.
"""

import dis
import sys
from types import TracebackType

from platform_core.component import ROLES
from platform_core.errors import one_line
from platform_core.registry.loading import installed
from platform_core.registry.parts import BASES


def mistake_of_the_user(error: ValueError) -> str | None:
    """The message of a `ValueError` in one line that names the part which raised it.

    None unless a `raise` of a part's own package raised the error, because any other `ValueError`,
    such as that of `int("x")` or of torch, is a defect whose traceback its author needs.
    """
    frames = []
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    last = frames[-1]
    if dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] != "RAISE_VARARGS":
        return None
    raised_in = str(last.tb_frame.f_globals.get("__name__", ""))
    for frame in reversed(frames):
        part = frame.tb_frame.f_locals.get("self")
        role = _role(part)
        if role is not None:
            inside = any(_package(owner) == raised_in.partition(".")[0] for owner in _classes(part))
            return f"{role} {_name(role, type(part))}: {one_line(error)}" if inside else None
    return None


def _classes(part: object) -> list[type]:
    return [owner for owner in type(part).__mro__ if owner is not object]


def _package(owner: type) -> str:
    return owner.__module__.partition(".")[0]


def _role(part: object) -> str | None:
    for role in ROLES:
        module, _, name = BASES[role].partition(":")
        base = getattr(sys.modules.get(module), name, None)
        if isinstance(base, type) and isinstance(part, base):
            return role
    return None


def _name(role: str, kind: type) -> str:
    """The name of the part whose objects have a class; the class's own if it is not registered."""
    own = f"{kind.__module__}:{kind.__qualname__}"
    for part in installed().parts():
        component = part.component
        if part.role == role and own in (component.target, *component.forms.values()):
            return component.name
    return kind.__qualname__
