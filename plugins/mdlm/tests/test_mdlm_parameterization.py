"""SUBS: nothing on the mask, tokens carried over, and the score that follows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from platform_core.process import LOG_ZERO, Absorbing, Masking
from platform_mdlm.parameterization import Subs
from platform_mdlm.process import Mdlm


def case(
    vocab_size: int, *, seed: int, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, ...]:
    """Logits and tokens, every second of them a mask."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(10, vocab_size + 1, generator=generator, dtype=dtype)
    x_t = torch.randint(vocab_size, (10,), generator=generator)
    x_t[::2] = vocab_size
    return logits, x_t


@given(vocab_size=st.integers(2, 30), seed=st.integers(0, 1000))
def test_masks_have_a_law_of_the_vocabulary_and_tokens_are_themselves(vocab_size, seed):
    logits, x_t = case(vocab_size, seed=seed)
    law = Subs().log_x0(logits, x_t, torch.tensor(0.5), Mdlm(vocab_size)).exp()
    expected = torch.zeros_like(logits)
    expected[::2, :-1] = logits[::2, :-1].softmax(-1)
    expected[torch.arange(1, 10, 2), x_t[1::2]] = 1
    torch.testing.assert_close(law, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_log_zero_stands_for_what_cannot_be_in_float32_at_least(dtype):
    logits, x_t = case(5, seed=0, dtype=dtype)
    log_x0 = Subs().log_x0(logits, x_t, torch.tensor(0.5), Mdlm(5))
    assert log_x0.dtype == torch.promote_types(dtype, torch.float32)
    assert (log_x0[:, -1] == LOG_ZERO).all()
    assert (log_x0[1::2].max(-1).values == 0).all()
    assert (log_x0[1::2].sum(-1) == 5 * LOG_ZERO).all()


def test_the_logit_of_the_mask_and_those_at_tokens_get_no_gradient():
    logits, x_t = case(5, seed=0)
    leaf = logits.requires_grad_()
    log_x0 = Subs().log_x0(leaf, x_t, torch.tensor(0.5), Mdlm(5))
    (gradient,) = torch.autograd.grad(log_x0[:, 0].sum(), leaf)
    assert (gradient[:, -1] == 0).all()
    assert (gradient[1::2] == 0).all()
    assert (gradient[::2, :-1] != 0).all()


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_the_score_is_the_prediction_at_masks_and_that_of_the_noise_at_tokens(alpha):
    logits, x_t = case(5, seed=3)
    process, level = Mdlm(5), torch.tensor(alpha, dtype=torch.float64)
    score = Subs().log_score(logits, x_t, level, process).exp()
    odds = alpha / (1 - alpha)
    torch.testing.assert_close(score[::2, :-1], odds * logits[::2, :-1].softmax(-1))
    torch.testing.assert_close(score[::2, -1], torch.ones(5).double())
    torch.testing.assert_close(score[1::2, -1], torch.full((5,), 1 / odds).double())
    torch.testing.assert_close(score[1::2, :-1].sum(-1), torch.ones(5).double())


@pytest.mark.parametrize("time_conditioned", [False, True])
def test_the_family_s_process_is_masks_and_tells_no_time_unless_asked(time_conditioned):
    process = Mdlm(7, time_conditioned=time_conditioned)
    assert isinstance(process, Absorbing)
    assert (process.mask_id, process.num_states) == (7, 8)
    assert process.time_conditioned is time_conditioned
    assert Mdlm(7).time_conditioned is False
    assert Subs.requires == {"process": Masking}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_nats_are_the_law_s_without_the_law(dtype):
    logits, x_t = case(30, seed=5, dtype=dtype)
    x0 = torch.where(torch.arange(10) % 4 == 1, x_t, torch.arange(10))
    found = []
    for by_law in (False, True):
        leaf = logits.clone().requires_grad_()
        if by_law:
            log_x0 = Subs().log_x0(leaf, x_t, torch.tensor(0.5), Mdlm(30))
            nats = -log_x0.gather(-1, x0[:, None]).squeeze(-1)
        else:
            nats = Subs().nats(leaf, x_t, x0, torch.tensor(0.5), Mdlm(30))
        (slope,) = torch.autograd.grad(nats.sum(), leaf)
        found.append((nats.detach(), slope))
    assert found[0][0].dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        found[0][1], found[1][1], rtol=1e-2 if dtype.itemsize == 2 else 1e-6, atol=1e-6
    )
