"""Block diffusion: what is seen, the bound by enumeration, its two limits, and the sampler."""

import pytest
import torch

from platform_blocks.objective import PARTS, BlockNelbo, least_varying, noisy_and_clean
from platform_blocks.sampler import Blocks
from platform_core.draws import Draws, derive_generator
from platform_core.model import Model
from platform_core.objective import Nelbo, Noised
from platform_core.parameterization import Mean
from platform_core.process import Absorbing, Uniform
from platform_core.sampler import Ancestral, Prompt
from platform_core.schedule import LogLinear
from platform_core.testing.stubs import Small
from platform_core.testing.toy import (
    ExactDenoiser,
    Mistaken,
    TinyNetwork,
    chi_square,
    exact_model,
    index_of,
    integrated_bound,
    model,
    random_law,
    seeded,
)
from platform_core.types import Batch

BOTH = pytest.mark.parametrize("process", [Absorbing, Uniform])
LAW = random_law(3, 3, seed=2)
STATES, LENGTH = 9, 10


def network(*, time_conditioned=True):
    torch.manual_seed(0)
    return Small(STATES, causal=False, time_conditioned=time_conditioned).double().eval()


def text(batch=3, length=LENGTH, tokens=STATES - 1, seed=1):
    return torch.randint(tokens, (batch, length), generator=seeded(seed))


def everything(x0):
    return Batch(x0, torch.ones_like(x0, dtype=torch.bool))


def test_what_tokens_see_is_the_table_of_the_paper():
    seen = noisy_and_clean(5, 2, torch.device("cpu")).dense((1, 10), torch.device("cpu"))[0].int()
    noisy, behind, clean = seen[:5, :5], seen[:5, 5:], seen[5:, 5:]
    block = [0, 0, 1, 1, 2]
    assert noisy.tolist() == [[int(i == j) for j in block] for i in block]
    assert behind.tolist() == [[int(j < i) for j in block] for i in block]
    assert clean.tolist() == [[int(j <= i) for j in block] for i in block]
    assert seen[5:, :5].sum() == 0


@BOTH
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_bound_of_exact_predictions_is_the_negative_log_likelihood(process, size):
    objective = BlockNelbo(exact_model(LAW, process), block_size=size)
    x0 = LAW.sequences()[::4]
    found = integrated_bound(objective, x0)
    torch.testing.assert_close(found, -LAW.log_prob(x0), rtol=0, atol=1e-11)


@BOTH
def test_one_block_is_the_bound_of_the_process_and_others_are_not(process):
    right = exact_model(LAW, process)
    wrong = Mistaken(right.backbone, (3, right.process.num_states))
    mistaken = right.with_backbone(wrong)
    x0 = LAW.sequences()[::5]
    whole = integrated_bound(Nelbo(mistaken), x0)
    one = integrated_bound(BlockNelbo(mistaken, block_size=3), x0)
    torch.testing.assert_close(one, whole, rtol=0, atol=1e-11)
    assert (integrated_bound(BlockNelbo(mistaken, block_size=1), x0) - whole).abs().min() > 1e-3


@BOTH
def test_blocks_of_one_token_are_an_autoregressive_network(process):
    """The bound is the cross-entropy of the token behind its prefix, read as pure noise."""
    built = process(3)
    wrong = Mistaken(ExactDenoiser(LAW, built), (3, built.num_states))
    objective = BlockNelbo(model(built, wrong), block_size=1)
    x0 = LAW.sequences()
    if process is Uniform:  # mistakes depend on the noisy token, so it is a diffusion of one token
        assert (integrated_bound(objective, x0) + LAW.log_prob(x0)).abs().max() > 0.01
        return
    masked = torch.full_like(x0, built.mask_id)
    alpha = torch.full((len(x0), 1), 0.5, dtype=torch.float64)
    logits = objective.features(everything(x0), Noised(masked, masked, alpha, -alpha))
    law = logits[..., :3].log_softmax(-1)
    nats = -law.gather(-1, x0[..., None]).squeeze(-1).sum(-1)
    torch.testing.assert_close(integrated_bound(objective, x0), nats, rtol=0, atol=1e-11)
    assert float(law.exp().prod(1).sum()) != 0


@pytest.mark.parametrize("size", [1, 3, 4, 10])
@pytest.mark.parametrize("time_conditioned", [False, True])
def test_no_clean_token_leaks_into_its_own_block_or_an_earlier_one(size, time_conditioned):
    backbone = network(time_conditioned=time_conditioned)
    process = Uniform(STATES) if time_conditioned else Absorbing(STATES - 1)
    objective = BlockNelbo(Model(process, LogLinear(), Mean(), backbone), block_size=size)
    x0 = text()
    x_t = process.corrupt(x0, torch.full((3, 1), 0.5, dtype=torch.float64), seeded(3))
    alpha = torch.full((3, 1), 0.5, dtype=torch.float64)

    def features(noisy, clean):
        return objective.features(everything(clean), Noised(noisy, noisy, alpha, -alpha))

    before = features(x_t, x0)
    block = torch.arange(LENGTH) // size
    for place in range(LENGTH):
        clean, noisy = x0.clone(), x_t.clone()
        clean[:, place] = (clean[:, place] + 1) % (STATES - 1)
        noisy[:, place] = (noisy[:, place] + 1) % STATES
        moved = (features(x_t, clean) - before).abs().amax((0, 2)) > 0
        assert torch.equal(moved, block > block[place])
        moved = (features(noisy, x0) - before).abs().amax((0, 2)) > 0
        assert torch.equal(moved, block == block[place])


def test_documents_of_a_sequence_do_not_see_each_other():
    backbone, process = network(), Uniform(STATES)
    objective = BlockNelbo(Model(process, LogLinear(), Mean(), backbone), block_size=2)
    documents = (torch.arange(LENGTH) // 4).expand(3, -1)
    x0 = text()
    alpha = torch.full((3, 1), 0.5, dtype=torch.float64)
    noised = Noised(x0, x0, alpha, -alpha)
    together = objective.features(everything(x0)._replace(documents=documents), noised)
    for first, last in ((0, 4), (4, 8), (8, 10)):
        part = x0[:, first:last]
        alone = objective.features(everything(part), Noised(part, part, alpha, -alpha))
        torch.testing.assert_close(together[:, first:last], alone)


def test_levels_are_one_for_each_block_and_stratified_over_all_of_them():
    objective = BlockNelbo(model(Absorbing(8), TinyNetwork(9)), block_size=4, t_min=0.25, t_max=0.5)
    x0 = text(batch=6)
    draws = Draws.derive("blocks", step=0, first=0, total=6)
    t = objective.times(x0, draws, 0.0)
    assert t.shape == (6, LENGTH)
    blocks = t[:, ::4]
    assert torch.equal(blocks.repeat_interleave(4, dim=1)[:, :LENGTH], t)
    assert (blocks * 18).floor().flatten().sort().values.tolist() == list(range(18))
    alpha = objective.noised(x0, Draws.derive("blocks", step=0, first=0, total=6)).alpha
    assert 0.5 <= float(alpha.min()) < 0.52
    assert 0.73 < float(alpha.max()) <= 0.75


def test_the_half_of_the_times_with_the_least_variance_is_found():
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)[:-1]
    values = 1 + 40 * (t - 0.6).abs().sub(0.25).clamp_min(0) * torch.where(
        torch.arange(2000) % 2 == 0, 1, -1
    )
    part = (t * PARTS).long()
    moments = torch.zeros(PARTS, 3, dtype=torch.float64).index_add(
        0, part, torch.stack((torch.ones_like(values), values, values.square()), dim=-1)
    )
    assert least_varying(moments, 1e-3).tolist() == pytest.approx([0.35, 0.85])
    assert least_varying(torch.zeros(PARTS, 3, dtype=torch.float64), 1e-3).tolist() == [1e-3, 1.0]


def test_a_search_changes_the_times_of_training_after_the_update_and_is_kept():
    torch.manual_seed(0)
    objective = BlockNelbo(model(Absorbing(8), TinyNetwork(9)), block_size=2, search_every=2)
    batch = everything(text(batch=64))
    before = objective.interval.clone()
    for step in range(2):
        objective(batch, Draws.derive("blocks", step=step, first=0, total=64))
        if step == 0:
            assert torch.equal(objective.interval, before)
        objective.after_update(step + 1, {})
    first, last = objective.interval.tolist()
    assert last - first == pytest.approx(0.5, abs=2e-3)
    # Masks: the loss of an untrained network is 1 / t times the share of masks.
    assert last == 1.0
    t = objective.times(batch.x0, Draws.derive("blocks", step=2, first=0, total=64), 0.0)
    noised = objective.noised(batch.x0, Draws.derive("blocks", step=2, first=0, total=64))
    torch.testing.assert_close(
        1 - noised.alpha, (first + (last - first) * t) * (1 - 1e-3), atol=2e-3, rtol=0
    )
    assert {"interval", "moments"} <= objective.state_dict().keys()


@pytest.mark.parametrize(
    "options", [{"search_every": -1}, {"block_size": 0}, {"t_min": 0.5, "t_max": 0.5}, {"t_max": 2}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=r"a block has at least 1|t_max is|search_every is"):
        BlockNelbo(model(Absorbing(8), TinyNetwork(9)), **options)


@pytest.mark.slow
@pytest.mark.parametrize(("process", "size"), [(Absorbing, 2), (Uniform, 1)])
def test_samples_have_the_law_of_the_text(process, size):
    exact = exact_model(LAW, process)
    sampler = Blocks(Ancestral(100), length=3, block_size=size)
    drawn = sampler(exact, (4_000, 3), derive_generator("blocks", size))
    assert chi_square(index_of(drawn.tokens, 3), LAW.probs.flatten()) > 1e-3


def sampled(prompt=None):
    sampler = Blocks(Ancestral(4), length=LENGTH, block_size=3)
    written = Model(Uniform(STATES), LogLinear(), Mean(), network())
    return sampler(written, (5, LENGTH), seeded(4), prompt)


def test_a_prompt_is_kept_and_finished_blocks_are_not_written_again():
    tokens = text(batch=5, seed=7)
    fixed = (torch.arange(LENGTH) < 7).expand(5, -1)
    whole, given = sampled(), sampled(Prompt(tokens, fixed))
    assert torch.equal(given.tokens[:, :7], tokens[:, :7])
    assert given.nfe < whole.nfe


def test_texts_stop_with_the_block_that_holds_the_end_of_a_document():
    class Ends:
        eos_id = 2

    process = Uniform(3)
    sampler = Blocks(Ancestral(4), length=6, block_size=2, stop=True, pad_id=1, tokenizer=Ends())
    drawn = sampler(Model(process, LogLinear(), Mean(), TinyNetwork(3)), (40, 20), seeded())
    ended = drawn.tokens == 2
    assert ended.any(-1).all()
    behind = ended.cumsum(-1) - ended.long() > 0
    assert (drawn.tokens[behind] == 1).all()
    assert drawn.nfe < 10 * 6


def test_who_watches_sees_whole_texts():
    seen = []
    watched = Model(Uniform(STATES), LogLinear(), Mean(), network()).watched(
        lambda inputs, alpha: seen.append(inputs.shape)
    )
    Blocks(Ancestral(2), length=LENGTH, block_size=4)(watched, (2, LENGTH), seeded())
    assert set(seen) == {(2, LENGTH)}


def test_the_size_of_blocks_is_that_of_training():
    objective = BlockNelbo(model(Absorbing(8), TinyNetwork(9)), block_size=4)
    assert Blocks(Ancestral(), length=32, objective=objective).block_size == 4
    assert Blocks(Ancestral(), length=32, block_size=8, objective=objective).block_size == 8
    assert Blocks(Ancestral(), length=32).block_size == 16
    with pytest.raises(ValueError, match="has to fit in it"):
        Blocks(Ancestral(), length=32, window=8)


def test_guesses_see_the_blocks_before_and_not_the_answer():
    exact = exact_model(LAW, Absorbing)
    objective = BlockNelbo(exact, block_size=1)
    x0 = LAW.sequences()
    found = objective.guesses(everything(x0), Draws.derive("x", step=0, first=0, total=len(x0)))
    table = LAW.probs
    assert torch.equal(found[:, 0], table.sum((1, 2)).argmax().expand(len(x0)))
    assert torch.equal(found[:, 2], table[x0[:, 0], x0[:, 1]].argmax(-1))
