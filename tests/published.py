"""The golden cases: inputs and outputs of the published reference code, and its network."""

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from platform_core.process import Process
from platform_dit.backbone import Dit

GOLDEN = Path(__file__).parent / "golden"
CASES = {case["id"]: case for case in json.loads((GOLDEN / "cases.json").read_text())["cases"]}


def tensors(case: str) -> dict[str, Tensor]:
    """The tensors of a case: `t` of its inputs, `output/alpha` of its outputs, and so on."""
    prefix = f"{case}/"
    stored = load_file(GOLDEN / CASES[case]["file"])
    return {
        name.removeprefix(prefix).removeprefix("input/").removeprefix("param/"): tensor
        for name, tensor in stored.items()
        if name.startswith(prefix)
    }


def tolerance(case: str) -> dict[str, float]:
    """How close the reference's float32 comes."""
    return {"rtol": CASES[case]["suggested_rtol"], "atol": CASES[case]["suggested_atol"]}


def slope_factor(name: str) -> float:
    """The reference's cosine slope lacks the factor 1 - eps of the chain rule."""
    return 1 - 1e-3 if name == "cosine" else 1.0


def network(process: Process) -> Dit:
    """The bidirectional network of the cases, of 19 states."""
    config = CASES["b.params"]["config"]
    backbone = Dit(
        num_states=process.num_states,
        causal=process.causal,
        time_conditioned=process.time_conditioned,
        hidden_size=config["hidden"],
        num_blocks=config["n_blocks"],
        num_heads=config["n_heads"],
        cond_size=config["cond_dim"],
    )
    parameters = tensors("b.params")
    state = backbone.state_dict()
    backbone.load_state_dict({key: parameters[key] for key in state})
    unused = parameters.keys() - state.keys()
    assert unused <= {"rotary_emb.inv_freq"}
    return backbone
