"""The sampler of ar with the key-value cache of dit: the cache changes the cost alone."""

import pytest
import torch
from torch import Tensor, nn

from platform_ar import model as predictor_module
from platform_ar.parameterization import NextToken
from platform_ar.process import Ar
from platform_ar.sampler import LeftToRight
from platform_core.backbone import Backbone, Rereader
from platform_core.model import Model
from platform_core.sampler import Prompt
from platform_core.schedule import LogLinear
from platform_core.testing.toy import all_sequences, chi_square, index_of, seeded
from platform_dit.backbone import Dit

TOKENS, LENGTH = 4, 3


def causal_dit() -> Dit:
    made = Dit(TOKENS + 1, True, False, hidden_size=16, num_blocks=2, num_heads=2)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4, generator=seeded(2))
    return made.eval()


def model(backbone: Backbone) -> Model:
    return Model(Ar(TOKENS), LogLinear(), NextToken(), backbone)


def law(backbone: Backbone) -> Tensor:
    """The chance of every sequence, written out."""
    x0 = all_sequences(TOKENS, LENGTH)
    with torch.no_grad():
        log_probs = backbone(Ar(TOKENS).inputs(x0), None)[..., :TOKENS].double().log_softmax(-1)
    return log_probs.gather(-1, x0[..., None]).squeeze(-1).sum(1).exp()


def test_samples_of_a_network_with_a_cache_follow_its_law() -> None:
    backbone = causal_dit()
    sample = LeftToRight()(model(backbone), (20_000, LENGTH), seeded(4))
    assert chi_square(index_of(sample.tokens, TOKENS), law(backbone)) > 0.01


@pytest.mark.slow
def test_a_cache_changes_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    built, shape = model(causal_dit()), (16, 40)
    cached = LeftToRight()(built, shape, seeded())
    monkeypatch.setattr(predictor_module, "reader", lambda backbone, _: Rereader(backbone))
    again = LeftToRight()(built, shape, seeded())
    assert torch.equal(cached.tokens, again.tokens)
    assert cached.nfe == again.nfe


@pytest.mark.parametrize("token", range(TOKENS))
def test_a_prompt_conditions_exactly(token: int) -> None:
    backbone = causal_dit()
    tokens = torch.full((10_000, LENGTH), token)
    fixed = (torch.arange(LENGTH) < 1).expand(10_000, LENGTH)
    sample = LeftToRight()(model(backbone), (10_000, LENGTH), seeded(7), Prompt(tokens, fixed))
    assert (sample.tokens[:, 0] == token).all()
    rest = law(backbone).view(TOKENS, -1)[token]
    assert chi_square(index_of(sample.tokens[:, 1:], TOKENS), rest / rest.sum()) > 0.01
