"""Document masks: packed documents have the features that they have by themselves."""

import pytest
import torch

from platform_core.errors import UsageError
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
    together = net.decoder(net.encode(tokens, sigma, labels, documents))
    alone = [net.decoder(net.encode(part, sigma, labels)) for part in tokens.split(LENGTHS, dim=1)]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=1e-9, atol=1e-9)
    mixed = net.decoder(net.encode(tokens, sigma, labels))
    assert (mixed - together).abs().max() > 1e-2


def test_nothing_leaks_from_one_document_into_another():
    net = network(causal=False)
    tokens, documents = packed()
    sigma = torch.ones(2, 1, dtype=torch.float64)
    changed = torch.where(documents == 1, (tokens + 1) % 9, tokens)
    before, after = (net.encode(x, sigma, documents=documents) for x in (tokens, changed))
    assert torch.equal(before[documents != 1], after[documents != 1])
    assert not torch.equal(before[documents == 1], after[documents == 1])


def test_a_single_document_is_a_sequence_without_masks():
    net = network(causal=False)
    tokens, documents = packed()
    sigma = torch.ones(2, 1, dtype=torch.float64)
    torch.testing.assert_close(
        net.encode(tokens, sigma, documents=torch.zeros_like(documents)), net.encode(tokens, sigma)
    )


def test_flash_attention_keeps_no_documents_apart():
    heads = torch.randn(1, 4, 2, 8)
    visible = torch.eye(4, dtype=torch.bool)[None]

    def kernel(*arguments, **options):
        raise AssertionError("not with masks")

    with pytest.raises(UsageError, match="cannot separate documents; choose attention auto"):
        Flash(kernel)(heads, heads, heads, causal=False, visible=visible)
    found = FlashWherePossible(kernel)(heads, heads, heads, causal=False, visible=visible)
    assert torch.equal(found, Sdpa()(heads, heads, heads, causal=False, visible=visible))
    torch.testing.assert_close(found, heads)
