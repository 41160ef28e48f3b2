"""The value that the published code computes, which takes the first token of a text as given."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from platform_ar.objective import NextTokenNll
from platform_ar.parameterization import NextToken
from platform_ar.process import Ar
from platform_core.model import Model
from platform_core.schedule import LogLinear
from platform_core.types import Batch
from platform_dit.backbone import Dit

GOLDEN = Path(__file__).parents[1] / "plugins/dit/tests/golden"
TENSORS = load_file(GOLDEN / "c_dit_causal.safetensors")
CASES = {case["id"]: case for case in json.loads((GOLDEN / "cases.json").read_text())["cases"]}


@pytest.fixture
def objective() -> NextTokenNll:
    """Around the published network, whose last state, there the mask, is here the start."""
    config = CASES["c.params"]["config"]
    process = Ar(CASES["c.ar_nll"]["config"]["mask_index"])
    network = Dit(
        process.num_states,
        process.causal,
        process.time_conditioned,
        hidden_size=config["hidden"],
        num_blocks=config["n_blocks"],
        num_heads=config["n_heads"],
    )
    prefix = "c.params/param/"
    network.load_state_dict(
        {k.removeprefix(prefix): v for k, v in TENSORS.items() if k.startswith(prefix)}
    )
    return NextTokenNll(Model(process, LogLinear(), NextToken(), network)).eval()


@torch.no_grad()
def test_nats_of_the_second_token_and_on_are_the_published_ones(objective: NextTokenNll) -> None:
    x0, case = TENSORS["c.ar_nll/input/x0"], CASES["c.ar_nll"]
    targets = x0[:, 1:]
    counted = torch.ones_like(targets, dtype=torch.bool)
    loss = objective.score(x0[:, :-1], Batch(targets, counted))
    within = {"rtol": case["suggested_rtol"], "atol": case["suggested_atol"]}
    torch.testing.assert_close(loss.per_token, TENSORS["c.ar_nll/output/nll"], **within)
