"""Laws of backbones, tested on small networks with perturbed initial weights.

Networks are often initialized with zeros, which would hide faults.
"""

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor, nn

from platform_core.backbone import Backbone, Conditional, Rereader, Sighted, reader
from platform_core.errors import UsageError
from platform_core.testing.law import Figures, Inapplicable, Laws, require
from platform_core.testing.subject import Subject, parameters
from platform_core.types import Inputs, Noise, Tokens, TopTokens
from platform_core.visibility import Visibility, block_causal, same_document

LAWS = Laws("backbone")

NUM_STATES, BATCH, LENGTH = 7, 3, 6
CLOSE = 1e-4
"""Allowed relative difference between two float32 computations of the same logits."""


def make(
    subject: Subject,
    *,
    causal: bool = False,
    time_conditioned: bool = False,
    num_labels: int = 0,
    seed: int = 0,
) -> Backbone:
    """Make the network in evaluation mode, with perturbed weights.

    Raises:
        Inapplicable: the backbone does not support these arguments.
    """
    torch.manual_seed(seed)
    try:
        network: Backbone = subject.make(
            vocab_size=NUM_STATES,
            num_states=NUM_STATES,
            causal=causal,
            time_conditioned=time_conditioned,
            num_labels=num_labels,
        )
    except UsageError as error:
        raise Inapplicable(str(error)) from error
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, dtype=parameter.dtype))
    return network.eval()


def each_form(subject: Subject, seed: int = 0) -> Iterator[tuple[str, Backbone, Noise | None]]:
    """Yield (name, network, noise level) of each form that processes need and the part supports."""
    reads = {parameter.name for parameter in parameters(subject.chosen)}
    level = torch.tensor([[0.1], [1.0], [3.0]])
    forms = {
        "plain": (False, False),
        "told the noise level": (False, True),
        "causal": (True, False),
    }
    for name, (causal, conditioned) in forms.items():
        if (causal and "causal" not in reads) or (conditioned and "time_conditioned" not in reads):
            continue
        try:
            network = make(subject, causal=causal, time_conditioned=conditioned, seed=seed)
        except Inapplicable:
            continue
        yield name, network, level if conditioned else None


def text(seed: int = 0) -> Tokens:
    """Random tokens, `[BATCH, LENGTH]`."""
    return torch.randint(NUM_STATES, (BATCH, LENGTH), generator=torch.Generator().manual_seed(seed))


def close(what: str, found: Tensor, expected: Tensor, allowed: float = CLOSE) -> str:
    """Require two tensors to be equal up to rounding; return their largest difference as text."""
    difference = float((found - expected).abs().nan_to_num(torch.inf).max())
    size = float(expected.abs().max().clamp_min(1))
    require(
        difference <= allowed * size, f"{what} by {difference:.3g} where numbers are {size:.3g}"
    )
    return f"largest difference {difference:.1e}"


@LAWS.law(heavy=True)
@torch.no_grad()
def shape_and_dtype(subject: Subject) -> Figures:
    """Logits are [batch, length, num_states], finite, and of the dtype of the weights, in every
    form that processes need.
    """
    forms = []
    for name, network, sigma in each_form(subject):
        logits = network(text(), sigma)
        weights = next(network.parameters()).dtype
        figures = f"{name}: {logits.dtype} {tuple(logits.shape)}, weights are {weights}"
        require(logits.shape == (BATCH, LENGTH, NUM_STATES), figures)
        require(logits.dtype == weights, figures)
        require(bool(logits.isfinite().all()), f"{name}: a logit is not finite")
        forms.append(name)
    require(bool(forms), "it supports no form that processes need")
    return ", ".join(forms)


@LAWS.law(heavy=True)
@torch.no_grad()
def decoder_by_rows(subject: Subject) -> Figures:
    """encode and then decoder, on any rows, give the logits of forward; decoder is a module of the
    network.
    """
    for name, network, sigma in each_form(subject):
        whole = network(text(), sigma)
        hidden = network.encode(text(), sigma)
        some = torch.tensor([[0, 3], [2, 1], [1, 5]])
        rows = network.decoder(hidden[some[:, 0], some[:, 1]])
        figures = close(f"{name}: rows differ", rows, whole[some[:, 0], some[:, 1]])
        inside = any(module is network.decoder for module in network.modules())
        require(inside, f"{name}: decoder is none of the network's modules")
    return figures


@LAWS.law(heavy=True)
@torch.no_grad()
def same_input_same_output(subject: Subject) -> Figures:
    """In evaluation mode, a sequence's logits are the same at every call and do not depend on the
    rest of the batch.
    """
    for name, network, sigma in each_form(subject):
        logits = network(text(), sigma)
        require(torch.equal(logits, network(text(), sigma)), f"{name}: the second time differs")
        alone = network(text()[1:2], None if sigma is None else sigma[1:2])
        figures = close(f"{name}: alone it differs", alone, logits[1:2])
    return figures


@LAWS.law(heavy=True)
@torch.no_grad()
def soft_inputs(subject: Subject) -> Figures:
    """Soft inputs with all probability on one token, dense or top tokens, act as that token."""
    name, network, sigma = next(each_form(subject))
    hard = network(text(), sigma)
    dense = nn.functional.one_hot(text(), NUM_STATES).to(hard.dtype)
    top = TopTokens(
        torch.stack((text(), (text() + 1) % NUM_STATES), dim=-1),
        torch.tensor([1.0, 0.0], dtype=hard.dtype).expand(BATCH, LENGTH, 2),
    )
    forms: dict[str, Inputs] = {"dense": dense, "top tokens": top}
    for what, inputs in forms.items():
        try:
            soft = network(inputs, sigma)
        except Exception as error:  # a network that reads tokens alone may raise anything
            raise Inapplicable(f"it does not read {what}: {type(error).__name__}") from error
        figures = close(f"{what}: logits differ", soft, hard)
    return figures


@LAWS.law(heavy=True)
@torch.no_grad()
def state_dict_round_trip(subject: Subject) -> Figures:
    """Weights loaded into a network of another seed give the same logits, bit for bit."""
    forms = zip(each_form(subject, 0), each_form(subject, 1), strict=True)
    for (name, one, sigma), (_, other, _) in forms:
        before = one(text(), sigma)
        require(not torch.equal(other(text(), sigma), before), f"{name}: seeds change nothing")
        other.load_state_dict(one.state_dict())
        require(torch.equal(other(text(), sigma), before), f"{name}: logits differ")
        number = sum(parameter.numel() for parameter in one.parameters())
    return f"{number:,} weights"


@LAWS.law(heavy=True)
def gradients_everywhere(subject: Subject) -> Figures:
    """A loss on the logits has a finite, nonzero gradient with respect to every parameter."""
    for name, network, sigma in each_form(subject):
        logits = network(text(), sigma)
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
        (logits * weights).sum().backward()
        parameters = dict(network.named_parameters())
        unused = [
            key
            for key, parameter in parameters.items()
            if parameter.requires_grad
            and (parameter.grad is None or not bool(parameter.grad.abs().max() > 0))
        ]
        require(not unused, f"{name}: no gradient reaches {', '.join(unused[:5])}")
        finite = all(p.grad is None or bool(p.grad.isfinite().all()) for p in parameters.values())
        require(finite, f"{name}: a gradient is not finite")
        figures = f"{len(parameters)} parameters"
    return figures


@LAWS.law(heavy=True)
@torch.no_grad()
def reads_the_noise_level(subject: Subject) -> Figures:
    """A time-conditioned backbone gives different logits at different noise levels."""
    forms = {name: (network, sigma) for name, network, sigma in each_form(subject)}
    if "told the noise level" not in forms:
        raise Inapplicable("it is never told the noise level")
    network, sigma = forms["told the noise level"]
    assert sigma is not None
    change = float((network(text(), sigma) - network(text(), sigma + 1)).abs().max())
    require(change > 0, "logits are the same at every noise level")
    return f"largest change {change:.2g}"


@LAWS.law(heavy=True)
@torch.no_grad()
def sees_the_whole_text(subject: Subject) -> Figures:
    """In a backbone that is not causal, every position sees every token."""
    network = make(subject)
    changed = network(text(), None), network(_with_another(LENGTH - 1), None)
    first = float((changed[0] - changed[1])[:, 0].abs().max())
    changed = network(text(), None), network(_with_another(0), None)
    last = float((changed[0] - changed[1])[:, -1].abs().max())
    require(first > 0, "the first position does not see the last token")
    require(last > 0, "the last position does not see the first token")
    return None


def _with_another(place: int) -> Tokens:
    """The tokens of `text()`, with another token at one position."""
    changed = text()
    changed[:, place] = (changed[:, place] + 1) % NUM_STATES
    return changed


def causal_form(subject: Subject) -> Backbone:
    """Make the backbone in its causal form.

    Raises:
        Inapplicable: the backbone has no causal form.
    """
    if "causal" not in {parameter.name for parameter in parameters(subject.chosen)}:
        raise Inapplicable("it has no causal form")
    return make(subject, causal=True)


@LAWS.law(heavy=True)
@torch.no_grad()
def causal_does_not_look_ahead(subject: Subject) -> Figures:
    """In a causal backbone, the logits at a position do not depend on later tokens."""
    network = causal_form(subject)
    before = network(text(), None)
    for place in range(1, LENGTH):
        after = network(_with_another(place), None)
        figures = close(
            f"token {place} changes those before it", after[:, :place], before[:, :place], 1e-5
        )
        require(not torch.equal(after[:, place], before[:, place]), f"token {place} is not read")
    return figures


@LAWS.law(heavy=True)
@torch.no_grad()
def reader_reads_the_same(subject: Subject) -> Figures:
    """A causal backbone gives the same features whether text is read in pieces or at once."""
    network = causal_form(subject)
    with torch.no_grad():
        whole = network.encode(text(), None)
        reading = reader(network, LENGTH)
        pieces = [reading.read(text()[:, a:b]) for a, b in ((0, 2), (2, 3), (3, LENGTH))]
    return close("features differ", torch.cat(pieces, dim=1), whole)


@LAWS.law(needs=Conditional, heavy=True)
@torch.no_grad()
def labels_are_read(subject: Subject) -> Figures:
    """A backbone that takes labels gives different logits for each label, and for none."""
    network = make(subject, num_labels=2)
    assert isinstance(network, Conditional)
    logits = {
        name: network.decoder(network.encode(text(), None, torch.full((BATCH,), label)))
        for label, name in enumerate(("label 0", "label 1", "no label"))
    }
    changes = []
    for one, other in combinations(logits, 2):
        changes.append(float((logits[one] - logits[other]).abs().max()))
        require(changes[-1] > 0, f"logits are the same under {one} and {other}")
    return f"changes by {min(changes):.2g} at least"


@LAWS.law(needs=Sighted, heavy=True)
@torch.no_grad()
def documents_are_kept_apart(subject: Subject) -> Figures:
    """A document has the same features among other documents of its sequence as alone."""
    network = _sighted(subject)
    documents = torch.tensor([0, 0, 1, 1, 1, 2]).expand(BATCH, LENGTH)
    together = network.encode(text(), None, None, same_document(documents))
    for first, last in ((0, 2), (2, 5), (5, 6)):
        alone = network.encode(text()[:, first:last], None)
        figures = close(f"tokens {first} to {last - 1} differ", together[:, first:last], alone)
    return figures


@LAWS.law(needs=Sighted, heavy=True)
@torch.no_grad()
def hidden_tokens_change_nothing(subject: Subject) -> Figures:
    """Under any rule, features change with what a position sees, directly or through others that it
    sees, and with nothing else.
    """
    network = _sighted(subject)
    for seed in range(4):
        allowed = _rule(seed)
        rule = _allowing(allowed)
        before = network.encode(text(), None, None, rule)
        reached = torch.linalg.matrix_power(allowed.double(), LENGTH) > 0
        for place in range(LENGTH):
            after = network.encode(_with_another(place), None, None, rule)
            change = (after - before).abs().amax((0, 2))
            leaks = change[~reached[:, place]]
            require(not bool(leaks.any()), f"token {place} is seen where the rule hides it")
            read = bool((change[allowed[:, place]] > 0).all())
            require(read, f"token {place} is not read where the rule shows it")
    return "4 rules"


@LAWS.law(needs=Sighted, heavy=True)
@torch.no_grad()
def positions_are_those_of_the_text(subject: Subject) -> Figures:
    """Tokens have the features that they have in their text in any order within a call."""
    network = _sighted(subject)
    whole = network.encode(text(), None)
    places = torch.tensor([3, 0, 5, 1, 4, 2])
    everything = Visibility(lambda text, query, key: key >= 0, places[None])
    mixed = network.encode(text()[:, places], None, None, everything)
    return close("features differ", mixed, whole[:, places])


@LAWS.law(needs=Sighted, heavy=True)
@torch.no_grad()
def pieces_see_the_pieces_before(subject: Subject) -> Figures:
    """A reader gives the features of the whole text in which each piece sees itself and those
    before it, with or without a cache; what it only looks at leaves no trace.
    """
    network = _sighted(subject)
    blocks = torch.tensor([0, 0, 1, 2, 2, 2])
    whole = network.encode(text(), None, None, block_causal(blocks))
    for name, reading in {"cache": reader(network, LENGTH), "no cache": Rereader(network)}.items():
        for first, last in ((0, 2), (2, 3), (3, LENGTH)):
            piece = text()[:, first:last]
            reading.look((piece + 1) % NUM_STATES)
            looked, read = reading.look(piece), reading.read(piece)
            require(torch.equal(looked, read), f"{name}: looking and reading differ")
            figures = close(f"{name}: features differ", read, whole[:, first:last])
    return figures


def _sighted(subject: Subject) -> Sighted:
    network = make(subject)
    assert isinstance(network, Sighted)
    return network


def _allowing(allowed: Tensor) -> Visibility:
    return Visibility(lambda text, query, key: allowed[query, key])


def _rule(seed: int) -> Tensor:
    """A random rule in which every position sees itself, `[LENGTH, LENGTH]`."""
    chance = torch.rand(LENGTH, LENGTH, generator=torch.Generator().manual_seed(seed))
    return (chance < 0.3) | torch.eye(LENGTH, dtype=torch.bool)
