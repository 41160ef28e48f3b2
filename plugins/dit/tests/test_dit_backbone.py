import itertools
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from torch.nn import functional

from platform_core.errors import UsageError
from platform_core.types import TopTokens
from platform_dit.backbone import SIZES, Dit

GOLDEN = Path(__file__).parent / "golden"
BIDIRECTIONAL = load_file(GOLDEN / "b_dit.safetensors")
CAUSAL = load_file(GOLDEN / "c_dit_causal.safetensors")
REFERENCE = {"hidden_size": 32, "num_blocks": 2, "num_heads": 2, "cond_size": 16}
STATES = 19


def published(tensors: dict[str, Tensor], case: str) -> dict[str, Tensor]:
    prefix = f"{case}/param/"
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@pytest.fixture
def bidirectional() -> Dit:
    network = Dit(STATES, causal=False, time_conditioned=True, **REFERENCE)
    network.load_state_dict(published(BIDIRECTIONAL, "b.params"))
    return network.eval()


@pytest.fixture
def causal() -> Dit:
    network = Dit(STATES, causal=True, time_conditioned=False, **REFERENCE)
    network.load_state_dict(published(CAUSAL, "c.params"))
    return network.eval()


@pytest.fixture
def ids() -> Tensor:
    return BIDIRECTIONAL["b.ids/input/ids"]


@pytest.fixture
def sigma() -> Tensor:
    return BIDIRECTIONAL["b.ids/input/sigma"][:, None]


def randomised(network: Dit) -> Dit:
    """Also the weights that start at zero, without which little would be seen."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return network


def golden_close(logits: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_logits_from_ids_are_the_published_ones(
    bidirectional: Dit, ids: Tensor, sigma: Tensor
) -> None:
    golden_close(bidirectional(ids, sigma), BIDIRECTIONAL["b.ids/output/logits"])


def test_logits_from_probabilities_are_the_published_ones(
    bidirectional: Dit, sigma: Tensor
) -> None:
    probabilities = BIDIRECTIONAL["b.soft/input/x_presoftmax"].softmax(-1)
    golden_close(bidirectional(probabilities, sigma), BIDIRECTIONAL["b.soft/output/logits"])


def test_logits_from_top_tokens_are_the_published_ones(bidirectional: Dit, sigma: Tensor) -> None:
    top = TopTokens(BIDIRECTIONAL["b.topk/input/indices"], BIDIRECTIONAL["b.topk/input/weights"])
    golden_close(bidirectional(top, sigma), BIDIRECTIONAL["b.topk/output/logits"])


def test_causal_logits_are_the_published_ones(causal: Dit) -> None:
    golden_close(causal(CAUSAL["c.ids/input/ids"], None), CAUSAL["c.ids/output/logits"])


@pytest.mark.parametrize(
    ("tensors", "case", "is_causal"),
    [(BIDIRECTIONAL, "b.params", False), (CAUSAL, "c.params", True)],
)
def test_names_and_shapes_are_the_published_ones(
    tensors: dict[str, Tensor], case: str, is_causal: bool
) -> None:
    network = Dit(STATES, causal=is_causal, time_conditioned=not is_causal, **REFERENCE)
    ours = {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert ours == {name: tensor.shape for name, tensor in published(tensors, case).items()}


def test_rotary_frequencies_are_the_published_ones() -> None:
    network = Dit(STATES, causal=False, time_conditioned=True, **REFERENCE)
    expected = BIDIRECTIONAL["b.params/param/rotary_emb.inv_freq"]
    torch.testing.assert_close(network.rotary_emb.inv_freq, expected)


def test_ids_and_one_hot_probabilities_and_a_single_top_token_are_alike(
    bidirectional: Dit, ids: Tensor, sigma: Tensor
) -> None:
    logits = bidirectional(ids, sigma)
    one_hot = functional.one_hot(ids, STATES).float()
    top = TopTokens(ids[..., None], torch.ones(*ids.shape, 1))
    torch.testing.assert_close(bidirectional(one_hot, sigma), logits)
    torch.testing.assert_close(bidirectional(top, sigma), logits)


def test_gradients_reach_the_weights_of_top_tokens_and_the_table(
    bidirectional: Dit, ids: Tensor, sigma: Tensor
) -> None:
    dense = torch.rand(*ids.shape, STATES).requires_grad_()
    weights = dense.detach().clone().requires_grad_()
    every = torch.arange(STATES).expand(*ids.shape, STATES)
    table = bidirectional.vocab_embed.embedding

    def gradients(inputs: Tensor | TopTokens, leaf: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(bidirectional(inputs, sigma).square().sum(), (leaf, table))

    from_dense = gradients(dense, dense)
    from_top = gradients(TopTokens(every, weights), weights)
    torch.testing.assert_close(from_top, from_dense, rtol=1e-3, atol=1e-3)


def test_causal_logits_ignore_later_tokens(causal: Dit) -> None:
    ids = CAUSAL["c.ids/input/ids"]
    changed = ids.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % STATES
    before, after = causal(ids, None), causal(changed, None)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.isclose(before[:, 6:], after[:, 6:]).all(-1).any()


def test_bidirectional_logits_depend_on_every_token(
    bidirectional: Dit, ids: Tensor, sigma: Tensor
) -> None:
    before = bidirectional(ids, sigma)
    for position in (0, ids.shape[1] - 1):
        changed = ids.clone()
        changed[:, position] = (changed[:, position] + 1) % STATES
        assert not torch.isclose(before, bidirectional(changed, sigma)).all(-1).any()


def test_decoding_rows_of_what_was_encoded_is_the_forward_pass(
    bidirectional: Dit, ids: Tensor, sigma: Tensor
) -> None:
    hidden = bidirectional.encode(ids, sigma)
    assert hidden.shape == (*ids.shape, 32)
    rows = bidirectional.decoder(hidden.flatten(0, 1))
    torch.testing.assert_close(rows, bidirectional(ids, sigma).flatten(0, 1))


def test_decoder_is_the_last_linear_map_and_nothing_else(bidirectional: Dit) -> None:
    assert bidirectional.decoder is bidirectional.output_layer.linear
    assert [name for name, _ in bidirectional.decoder.named_parameters()] == ["weight", "bias"]
    assert not any(name.startswith("decoder") for name in bidirectional.state_dict())


def test_each_sequence_reads_its_own_noise_level(bidirectional: Dit, ids: Tensor) -> None:
    same = ids[:1].expand(3, -1)
    levels = torch.tensor([[0.1], [1.0], [5.0]])
    together = bidirectional(same, levels)
    alone = torch.cat([bidirectional(same[:1], level[None]) for level in levels])
    torch.testing.assert_close(together, alone)
    for one, other in itertools.combinations(together, 2):
        assert not torch.allclose(one, other, atol=1e-3)


def test_noise_levels_may_differ_by_position(
    bidirectional: Dit, ids: Tensor, sigma: Tensor
) -> None:
    everywhere = sigma.expand(ids.shape)
    torch.testing.assert_close(bidirectional(ids, everywhere), bidirectional(ids, sigma))
    uneven = everywhere.clone()
    uneven[:, 3] += 1
    assert not torch.allclose(bidirectional(ids, uneven), bidirectional(ids, sigma), atol=1e-3)


def test_a_network_that_is_not_told_the_level_reads_zero(bidirectional: Dit, ids: Tensor) -> None:
    untold = Dit(STATES, causal=False, time_conditioned=False, **REFERENCE)
    untold.load_state_dict(bidirectional.state_dict())
    torch.testing.assert_close(untold.eval()(ids, None), bidirectional(ids, torch.zeros(3, 1)))


def test_an_untrained_network_predicts_evenly(ids: Tensor, sigma: Tensor) -> None:
    network = Dit(STATES, causal=False, time_conditioned=True)
    assert torch.equal(network(ids, sigma), torch.zeros(*ids.shape, STATES))
    for name, parameter in network.named_parameters():
        assert ("adaLN_modulation" in name or "linear" in name) == (not parameter.any()), name


def test_embeddings_start_as_kaiming_uniform() -> None:
    torch.manual_seed(0)
    table = Dit(1000, causal=False, time_conditioned=True).vocab_embed.embedding
    bound = 1 / math.sqrt(128)
    assert table.abs().max() <= bound
    assert table.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)


def test_a_tied_last_layer_is_the_table_and_learns_from_both_uses(
    ids: Tensor, sigma: Tensor
) -> None:
    network = randomised(Dit(STATES, False, True, tie_embeddings=True, **REFERENCE))
    assert network.decoder.weight is network.vocab_embed.embedding
    assert (
        sum(p.numel() for p in network.parameters())
        == sum(p.numel() for p in Dit(STATES, False, True, **REFERENCE).parameters())
        - network.decoder.weight.numel()
    )
    network(ids, sigma).square().sum().backward()
    absent = torch.tensor([token not in ids for token in range(STATES)])
    # As an input, an absent token has no gradient; as an output, every token has one.
    assert absent.any()
    assert network.decoder.weight.grad[absent].any(-1).all()


def test_tied_weights_survive_a_file(tmp_path: Path, ids: Tensor, sigma: Tensor) -> None:
    network = randomised(Dit(STATES, False, True, tie_embeddings=True, **REFERENCE))
    again = Dit(STATES, False, True, tie_embeddings=True, **REFERENCE)
    save_model(network, str(tmp_path / "model.safetensors"))
    load_model(again, tmp_path / "model.safetensors")
    assert again.decoder.weight is again.vocab_embed.embedding
    assert torch.equal(again(ids, sigma), network(ids, sigma))


def test_weights_survive_a_file(
    tmp_path: Path, bidirectional: Dit, ids: Tensor, sigma: Tensor
) -> None:
    save_file(bidirectional.state_dict(), tmp_path / "model.safetensors")
    again = Dit(STATES, causal=False, time_conditioned=True, **REFERENCE)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(again.eval()(ids, sigma), bidirectional(ids, sigma))


@pytest.mark.parametrize("is_causal", [False, True])
def test_dropout_acts_in_training_only(ids: Tensor, is_causal: bool) -> None:
    network = Dit(STATES, is_causal, time_conditioned=False, dropout=0.5, **REFERENCE)
    randomised(network).train()
    assert not torch.equal(network(ids, None), network(ids, None))
    network.eval()
    without = Dit(STATES, is_causal, time_conditioned=False, **REFERENCE)
    without.load_state_dict(network.state_dict())
    assert torch.equal(network(ids, None), without.train()(ids, None))


@pytest.mark.parametrize("is_causal", [False, True])
def test_it_is_built_on_the_meta_device_and_filled_from_a_file(
    is_causal: bool, ids: Tensor
) -> None:
    source = randomised(Dit(STATES, is_causal, time_conditioned=False, **REFERENCE))
    with torch.device("meta"):
        network = Dit(STATES, is_causal, time_conditioned=False, **REFERENCE)
    tensors = [*network.parameters(), *network.buffers()]
    assert all(tensor.is_meta for tensor in tensors)
    assert network(ids.to("meta"), None).shape == (*ids.shape, STATES)
    network.to_empty(device="cpu").load_state_dict(source.state_dict())
    assert torch.equal(network(ids, None), source(ids, None))


@pytest.mark.parametrize("is_causal", [False, True])
def test_bfloat16_autocast_is_close_to_float32(is_causal: bool, ids: Tensor) -> None:
    network = randomised(Dit(STATES, is_causal, time_conditioned=False, **REFERENCE))
    exact = network(ids, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = network.encode(ids, None)
        rounded = network.decoder(hidden)
    assert hidden.dtype == torch.float32
    assert rounded.dtype == torch.bfloat16
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.02


def test_gradients_under_autocast_are_close_to_float32(ids: Tensor) -> None:
    network = randomised(Dit(STATES, causal=False, time_conditioned=False, **REFERENCE))

    def gradient(enabled: bool) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = network(ids, None).float().log_softmax(-1)[..., 0].mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*network.parameters()])])

    exact = gradient(False)
    assert (gradient(True) - exact).norm() / exact.norm() < 0.05


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_whole_networks_of_other_dtypes_agree(
    dtype: torch.dtype, bidirectional: Dit, ids: Tensor, sigma: Tensor
) -> None:
    expected = bidirectional(ids, sigma)
    logits = bidirectional.to(dtype)(ids, sigma)
    assert logits.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float64 else 0.05
    assert (logits.float() - expected).norm() / expected.norm() < tolerance


def test_sequences_of_any_length_are_read(causal: Dit) -> None:
    ids = CAUSAL["c.ids/input/ids"]
    torch.testing.assert_close(causal(ids[:, :5], None), causal(ids, None)[:, :5])


@pytest.mark.parametrize("name", SIZES)
def test_presets_have_their_sizes(name: str) -> None:
    with torch.device("meta"):
        network = Dit(100, causal=False, time_conditioned=True, size=name)
    size = SIZES[name]
    assert network.vocab_embed.embedding.shape == (100, size.hidden_size)
    assert len(network.blocks) == size.num_blocks
    assert network.rotary_emb.inv_freq.shape == (size.hidden_size // size.num_heads // 2,)
    assert network.sigma_map.mlp[2].weight.shape == (size.cond_size, size.cond_size)


def test_single_numbers_replace_those_of_a_preset() -> None:
    with torch.device("meta"):
        network = Dit(
            100, False, True, size="small", num_blocks=2, num_heads=6, cond_size=8, mlp_ratio=3
        )
    assert len(network.blocks) == 2
    assert network.rotary_emb.inv_freq.shape == (64,)
    assert network.sigma_map.mlp[0].weight.shape == (8, 256)
    assert network.blocks[0].mlp[0].weight.shape == (3 * 768, 768)


def test_the_readme_states_the_number_of_parameters() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    for size in SIZES:
        for is_causal in (False, True):
            with torch.device("meta"):
                network = Dit(50258, is_causal, time_conditioned=not is_causal, size=size)
            assert f"{sum(p.numel() for p in network.parameters()):,}" in readme


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 100, "num_heads": 3}, "hidden_size 100 .* num_heads 3 .* 96 or 102"),
        ({"hidden_size": 12, "num_heads": 4}, "hidden_size 12 .* num_heads 4 .* 8 or 16"),
        ({"hidden_size": 4, "num_heads": 4}, "choose hidden_size 8,"),
        ({"num_blocks": 0}, "num_blocks is 0, .* at least 1"),
        ({"num_blocks": 10**5}, "num_blocks is 100000, .* at most 10000"),
        ({"cond_size": 10**9}, "cond_size is 1000000000, .* at most 1000000"),
        ({"num_heads": -2}, "num_heads is -2"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"cond_size": 0}, "cond_size is 0"),
        ({"mlp_ratio": 0}, "mlp_ratio is 0"),
        ({"dropout": 1.0}, "dropout is 1, .* below 1"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"dropout": math.nan}, "dropout is nan"),
    ],
)
def test_sizes_that_do_not_fit_are_named_with_ones_that_do(
    options: dict[str, float], message: str
) -> None:
    with torch.device("meta"), pytest.raises(UsageError, match=message) as raised:
        Dit(100, causal=False, time_conditioned=True, **options)
    assert "\n" not in str(raised.value)


def test_labels_add_one_table_and_leave_the_other_weights_as_they_are() -> None:
    def weights(**options: int) -> dict[str, Tensor]:
        torch.manual_seed(0)
        return Dit(STATES, False, True, **REFERENCE, **options).state_dict()

    plain, labelled = weights(), weights(num_labels=3)
    table = labelled.pop("label_map.weight")
    assert table.shape == (4, 16)
    assert plain.keys() == labelled.keys() == weights(num_labels=0).keys()
    assert all(torch.equal(plain[name], labelled[name]) for name in plain)


@pytest.mark.parametrize("told", [True, False])
def test_each_sequence_reads_its_own_label(told: bool, ids: Tensor, sigma: Tensor) -> None:
    network = randomised(Dit(STATES, False, told, num_labels=2, **REFERENCE)).eval()
    level = sigma[:1].expand(3, 1) if told else None
    same = ids[:1].expand(3, -1)
    together = network.encode(same, level, torch.arange(3))
    for label in range(3):
        alone = network.encode(same, level, torch.tensor([label]))
        torch.testing.assert_close(alone[0], together[label])
        assert torch.equal(alone[0], alone[1])
    # The last is no label at all.
    for one, other in itertools.combinations(together, 2):
        assert not torch.allclose(one, other, atol=1e-3)


def test_labels_are_neither_forgotten_nor_ignored(ids: Tensor) -> None:
    with pytest.raises(AssertionError, match="labels are given exactly"):
        Dit(STATES, False, False, num_labels=2, **REFERENCE).encode(ids, None)
    with pytest.raises(AssertionError, match="labels are given exactly"):
        Dit(STATES, False, False, **REFERENCE).encode(ids, None, torch.tensor([0]))


def test_the_causal_form_reads_no_labels() -> None:
    with pytest.raises(UsageError, match="causal form reads no labels"):
        Dit(100, causal=True, time_conditioned=False, num_labels=2)


def test_the_causal_form_takes_no_noise_level() -> None:
    with pytest.raises(UsageError, match="takes no noise level"):
        Dit(100, causal=True, time_conditioned=True)
