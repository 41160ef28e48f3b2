"""Likelihoods of continuations under objectives of other packages: ar, duo and mdlm."""

import pytest
import torch
from small_law import CONTEXT, LAW, TEXTS, asked, close_to, truth

from platform_ar.objective import NextTokenNll
from platform_ar.parameterization import NextToken
from platform_ar.process import Ar
from platform_core.draws import Draws
from platform_core.errors import UsageError
from platform_core.model import Model
from platform_core.objective import Nelbo
from platform_core.process import Absorbing, Uniform
from platform_core.schedule import LogLinear
from platform_core.testing.toy import (
    CausalNetwork,
    ExactDenoiser,
    TinyNetwork,
    model,
)
from platform_core.types import Batch
from platform_duo.objective import DiscreteConsistency
from platform_harness.likelihood import (
    CleanContext,
    Exact,
    NoisedContext,
    choose,
)
from platform_mdlm.objective import MaskedNelbo
from platform_mdlm.parameterization import Subs


def causal():
    torch.manual_seed(0)
    process = Ar(3)
    parts = process, LogLinear(), NextToken(), CausalNetwork(process.num_states).double()
    return NextTokenNll(Model(*parts))


def test_from_left_to_right_it_is_exact_and_of_one_law():
    likelihood = choose(causal(), None, 32)
    assert isinstance(likelihood, Exact)
    (found,) = asked(likelihood)
    log_probs = torch.tensor(found.log_probs, dtype=torch.float64)
    assert log_probs.exp().sum() == pytest.approx(1, abs=1e-6)
    assert set(found.standard_errors) == {0.0}
    x0 = torch.tensor([text.tokens for text in TEXTS])
    draws = Draws.derive("any", step=0, first=0, total=1)
    with torch.no_grad():
        nats = likelihood.objective.bound(Batch(x0, torch.ones_like(x0, dtype=torch.bool)), draws)
    torch.testing.assert_close(-nats.per_token[:, 1:].sum(-1).double(), log_probs)


def test_only_the_likeliest_ending_from_left_to_right_is_guessed():
    objective = causal()
    (found,) = asked(choose(objective, None, 1))
    text = list(CONTEXT)
    for _ in range(2):
        inputs = objective.predictor.process.inputs(torch.tensor([[*text, 0]]))
        logits = objective.model.backbone(inputs, None)[0, -1, :3]
        text.append(int(logits.argmax()))
    assert [t.tokens for t, hit in zip(TEXTS, found.guessed, strict=True) if hit] == [tuple(text)]


def test_masks_leave_the_context_clean_and_other_noise_does_not_unless_asked_to():
    masks = Nelbo(model(Absorbing(3), TinyNetwork(4)))
    uniform = Nelbo(model(Uniform(3), TinyNetwork(3)))
    distilled = DiscreteConsistency(model(Uniform(3), TinyNetwork(3)))
    assert type(choose(masks, None, 2)) is CleanContext
    assert type(choose(uniform, None, 2)) is NoisedContext
    assert type(choose(uniform, "clean", 2)) is CleanContext
    assert choose(distilled, None, 2).objective is distilled.ordinary
    with pytest.raises(UsageError, match="--context clean is for bounds"):
        choose(causal(), "clean", 2)


@pytest.mark.slow
def test_closed_forms_and_steps_are_read_as_their_own_bounds():
    """A closed form agrees with the generic bound, and T steps keep the bound of T steps."""
    process = Absorbing(3)
    network = model(process, ExactDenoiser(LAW, process), parameterization=Subs())
    (generic,) = asked(CleanContext(Nelbo(network), 8))
    (closed,) = asked(CleanContext(MaskedNelbo(network), 8))
    assert closed.log_probs == pytest.approx(generic.log_probs, rel=1e-5)
    (one_step,) = asked(CleanContext(MaskedNelbo(network, num_steps=1), 4000), batch_size=2000)
    # In one step both places are guessed from the context alone.
    joint = truth().exp().view(3, 3)
    alone = (joint.sum(1).log()[:, None] + joint.sum(0).log()).flatten()
    close_to(alone, one_step)
