"""The network of the golden cases, for tests that compare losses through it."""

from pathlib import Path

from platform_core.process import Process
from platform_core.testing.golden import Golden
from platform_dit.backbone import Dit

PLUGINS = Path(__file__).parents[1] / "plugins"
THROUGH_THE_NETWORK = Golden(Path(__file__).parent / "golden")
"""The cases whose logits are those of `network`."""
DIT, DUO = (Golden(PLUGINS / name / "tests" / "golden") for name in ("dit", "duo"))


def network(process: Process) -> Dit:
    """The bidirectional network of the cases, of 19 states."""
    config = DIT.cases["b.params"]["config"]
    backbone = Dit(
        num_states=process.num_states,
        causal=process.causal,
        time_conditioned=process.time_conditioned,
        hidden_size=config["hidden"],
        num_blocks=config["n_blocks"],
        num_heads=config["n_heads"],
        cond_size=config["cond_dim"],
    )
    parameters = DIT.tensors("b.params")
    state = backbone.state_dict()
    backbone.load_state_dict({key: parameters[key] for key in state})
    unused = parameters.keys() - state.keys()
    assert unused <= {"rotary_emb.inv_freq"}
    return backbone
