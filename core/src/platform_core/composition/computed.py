"""Constructor parameters that are computed from other parts instead of being options.

A part receives, by name, those that its constructor takes; the command line neither shows nor
accepts them.

    vocab_size, num_states      tokens of the tokenizer; those and the states that the process adds
    causal, time_conditioned    of the process
    num_labels                  number of labels of the data; 0 if they have none
    model                       process, schedule, parameterization and backbone, for objectives
    objective                   what trained the network, for samplers and rewards
    length                      tokens in a sequence, the option data.length
    tokenizer, pad_id           the run's `Tokenizer` and the id of its padding
    label_names                 tuple of the names of the labels, in the order of their numbers

Before a run, parts are made without memory to check their options: then there are 32 tokens
(`PLACEHOLDER_VOCABULARY`) and, for data with labels, 2 labels, and `tokenizer` and `pad_id` are
None. They are also None where a network is made without its run, such as in `platform bench`, and
so is `objective`. A part that refuses the vocabulary or the length of the run raises a `ValueError`
with one line.
"""

import inspect
from collections.abc import Iterable, Mapping

FACTS = ("vocab_size", "num_states")
TEXT = ("length", "pad_id", "tokenizer", "label_names")
COMPUTED: Mapping[str, tuple[str, ...]] = {
    "process": ("vocab_size", *TEXT),
    "schedule": (*FACTS, *TEXT),
    "parameterization": (*FACTS, *TEXT),
    "backbone": (*FACTS, "causal", "time_conditioned", "num_labels", *TEXT),
    "objective": ("model", *TEXT),
    "sampler": (*FACTS, "time_conditioned", "objective", *TEXT),
    "reward": (*FACTS, "time_conditioned", "objective", *TEXT),
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
