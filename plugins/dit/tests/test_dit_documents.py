"""Document masks: packed documents have the features that they have by themselves."""

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from platform_core.errors import UsageError
from platform_core.visibility import same_document
from platform_dit import attention
from platform_dit.attention import Flash, FlashWherePossible, Sdpa
from platform_dit.backbone import Dit

LENGTHS = (3, 5, 1, 4)


def network(causal, num_labels=0):
    torch.manual_seed(0)
    built = Dit(
        9,
        causal,
        not causal,
        hidden_size=16,
        num_blocks=3,
        num_heads=2,
        cond_size=8,
        num_labels=num_labels,
    )
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return built.double().eval()


def packed():
    tokens = torch.randint(9, (2, sum(LENGTHS)), generator=torch.Generator().manual_seed(1))
    documents = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    return tokens, documents.expand(2, -1)


@pytest.mark.parametrize(("causal", "labelled"), [(False, False), (False, True), (True, False)])
def test_packed_documents_have_the_logits_that_they_have_alone(causal, labelled):
    net = network(causal, 3 if labelled else 0)
    tokens, documents = packed()
    sigma = None if causal else torch.tensor([[0.3], [1.2]], dtype=torch.float64)
    labels = torch.tensor([0, 2]) if labelled else None
    together = net.decoder(net.encode(tokens, sigma, labels, same_document(documents)))
    alone = [net.decoder(net.encode(part, sigma, labels)) for part in tokens.split(LENGTHS, dim=1)]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=1e-9, atol=1e-9)
    mixed = net.decoder(net.encode(tokens, sigma, labels))
    assert (mixed - together).abs().max() > 1e-2


def test_nothing_leaks_from_one_document_into_another():
    net = network(causal=False)
    tokens, documents = packed()
    sigma = torch.ones(2, 1, dtype=torch.float64)
    changed = torch.where(documents == 1, (tokens + 1) % 9, tokens)
    before, after = (
        net.encode(x, sigma, visibility=same_document(documents)) for x in (tokens, changed)
    )
    assert torch.equal(before[documents != 1], after[documents != 1])
    assert not torch.equal(before[documents == 1], after[documents == 1])


def test_a_single_document_is_a_sequence_without_masks():
    net = network(causal=False)
    tokens, documents = packed()
    sigma = torch.ones(2, 1, dtype=torch.float64)
    torch.testing.assert_close(
        net.encode(tokens, sigma, visibility=same_document(torch.zeros_like(documents))),
        net.encode(tokens, sigma),
    )


def test_flash_attention_keeps_no_documents_apart():
    heads = torch.randn(1, 4, 2, 8)
    visible = torch.eye(4, dtype=torch.bool)[None]

    def kernel(*arguments, **options):
        raise AssertionError("not with masks")

    with pytest.raises(UsageError, match="cannot hide positions .*; choose attention auto"):
        Flash(kernel)(heads, heads, heads, causal=False, visible=visible)
    found = FlashWherePossible(kernel)(heads, heads, heads, causal=False, visible=visible)
    assert torch.equal(found, Sdpa()(heads, heads, heads, causal=False, visible=visible))
    torch.testing.assert_close(found, heads)


@pytest.fixture
def flexible(monkeypatch):
    """Documents are separated by FlexAttention here too, not compiled."""
    monkeypatch.setattr(attention, "FLEX_ON", {"cpu"})
    monkeypatch.setattr(attention, "_flex_kernel", lambda: flex_attention)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("lengths", [LENGTHS, (130, 1, 125, 44), (7,)])
@pytest.mark.parametrize("causal", [False, True])
def test_flex_attention_separates_documents_as_a_dense_mask_does(causal, lengths, flexible):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, sum(lengths), 3, 16) for _ in range(3))
    numbers = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    documents = torch.stack((numbers, numbers // 2))
    chosen = attention.choose("auto", 16)
    rule, shape = same_document(documents), (2, sum(lengths))
    blocks, dense = (
        kind.mask(rule, shape, torch.device("cpu"), causal=causal) for kind in (chosen, Sdpa())
    )
    assert isinstance(chosen, attention.Flexible)
    assert not isinstance(blocks, torch.Tensor)
    found = chosen(query, key, value, causal=causal, visible=blocks)
    expected = Sdpa()(query, key, value, causal=causal, visible=dense)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    also = chosen(query, key, value, causal=causal, visible=dense)
    assert torch.equal(also, expected)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("causal", [False, True])
def test_a_network_has_the_same_features_with_flex_attention(causal, monkeypatch):
    torch.manual_seed(0)
    net = Dit(9, causal, not causal, hidden_size=32, num_blocks=2, num_heads=2, cond_size=8).eval()
    tokens, documents = packed()
    sigma = None if causal else torch.ones(2, 1)
    with torch.no_grad():
        expected = net.encode(tokens, sigma, visibility=same_document(documents))
        monkeypatch.setattr(attention, "FLEX_ON", {"cpu"})
        monkeypatch.setattr(attention, "_flex_kernel", lambda: flex_attention)
        found = net.encode(tokens, sigma, visibility=same_document(documents))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_only_auto_separates_documents_by_flex_attention_and_only_on_a_gpu():
    documents = packed()[1]
    rule, device = same_document(documents), torch.device("cpu")
    for name, size in (("auto", 64), ("auto", 24), ("auto", 8), ("sdpa", 64)):
        chosen = attention.choose(name, size)
        assert isinstance(chosen, attention.Flexible) == ((name, size) == ("auto", 64))
        assert isinstance(
            chosen.mask(rule, (2, documents.shape[1]), device, causal=False), torch.Tensor
        )
