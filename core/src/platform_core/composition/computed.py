"""Constructor parameters that are computed from other parts instead of being options.

A part receives, by name, those that its constructor takes; the command line neither shows nor
accepts them.
"""

import inspect
from collections.abc import Iterable, Mapping

FACTS = ("vocab_size", "num_states")
COMPUTED: Mapping[str, tuple[str, ...]] = {
    "process": ("vocab_size",),
    "schedule": FACTS,
    "parameterization": FACTS,
    "backbone": (*FACTS, "causal", "time_conditioned", "num_labels"),
    "objective": ("model",),
    "sampler": (*FACTS, "time_conditioned"),
}


def accepted(part: type, names: Iterable[str]) -> list[str]:
    """The names that a class's constructor takes, itself or by passing **kwargs to its parents."""
    found: set[str] = set()
    for owner in part.__mro__:
        if "__init__" not in vars(owner):
            continue
        parameters = inspect.signature(vars(owner)["__init__"]).parameters.values()
        found |= {parameter.name for parameter in parameters}
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return [name for name in names if name in found]
