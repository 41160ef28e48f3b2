"""Laws of objectives, tested on a distribution of text small enough to know -log p.

    bound of the exact network = -log p,    mean bound of any other network >= entropy

For uniform noise, the exact network predicts a token from all other tokens (`toy`).
"""

from collections.abc import Callable
from functools import partial
from typing import final

import torch
from torch import Tensor, nn

from platform_core.backbone import Backbone, Conditional, Sighted
from platform_core.draws import Drawn, Draws, derive_generator
from platform_core.model import Model, weights
from platform_core.objective import (
    DiffusionObjective,
    Following,
    Guessing,
    Loss,
    Nelbo,
    Objective,
)
from platform_core.schedule import Stepwise
from platform_core.testing.law import Figures, Laws, require
from platform_core.testing.partners import Setting, settings
from platform_core.testing.process import agree
from platform_core.testing.subject import Subject
from platform_core.testing.toy import integrated_bound, stepped_bound, two_token_law
from platform_core.types import (
    Batch,
    Conditions,
    Documents,
    Hidden,
    Inputs,
    Labels,
    Noise,
    TopTokens,
)
from platform_core.visibility import Visibility

LAWS = Laws("objective")

TEXTS = 60_000
ERRORS = 5.0
"""Allowed deviation in standard errors; a correct part fails one test in two million."""
VOCABULARY, BATCH, LENGTH = 5, 4, 6


def make(subject: Subject, model: Model) -> Objective:
    """The objective of a model in evaluation mode, in its state before training."""
    objective: Objective = subject.make(model=model)
    if isinstance(objective, Following):
        objective.after_update(0, weights(model.backbone))
    return objective.eval()


def draws(seed: int = 0, total: int = BATCH, first: int = 0) -> Draws:
    """What a batch draws from."""
    return Draws.derive("laws", seed, step=0, first=first, total=total)


def _without_bound(subject: Subject) -> str:
    """Why laws of bounds do not apply; empty if they do."""
    assert issubclass(subject.kind, Objective), "laws of objectives"
    return "" if subject.kind.has_bound else "it says that it has no bound"


class AtOnce(Draws):
    """Draws of the same law from one generator, which is quicker for very many sequences."""

    def each(self, draw: Callable[..., Drawn], *columns: Tensor) -> Drawn:
        """What `draw` makes of all sequences together."""
        self.calls += 1
        return draw(*columns, derive_generator(self.seed, self.calls, self.first))


@torch.no_grad()
def excess(subject: Subject, setting: Setting, *, mistaken: bool) -> tuple[float, float, float]:
    """Mean of bound + log p over many sequences, its standard error, and mean -log p; in nats."""
    law = two_token_law()
    objective = make(subject, setting.exact(law, mistaken=mistaken))
    chosen = torch.multinomial(
        law.probs.flatten(), TEXTS, replacement=True, generator=derive_generator("texts")
    )
    x0 = law.sequences()[chosen]
    everything = torch.ones_like(x0, dtype=torch.bool)
    noise = AtOnce.derive("laws", step=0, first=0, total=TEXTS)
    bound = objective.bound(Batch(x0, everything), noise)
    nats = -law.log_prob(x0)
    difference = bound.per_token.double().sum(-1) - nats
    error = float(difference.std()) / TEXTS**0.5
    return float(difference.mean()), error, float(nats.mean())


@LAWS.law(heavy=True, against=_without_bound)
def tight(subject: Subject) -> Figures:
    """The mean bound of the exact network is the mean -log p, up to the error of 60,000 draws."""
    said = []
    for setting in settings(subject):
        mean, error, entropy = excess(subject, setting, mistaken=False)
        figures = f"{setting}: {entropy + mean:.4f} +- {error:.4f} nats for {entropy:.4f}"
        require(abs(mean) <= ERRORS * error + 1e-3, figures)
        said.append(figures)
    return "; ".join(said)


@LAWS.law(heavy=True, against=_without_bound)
def never_below(subject: Subject) -> Figures:
    """The mean bound of a mistaken network is not below the entropy of the text."""
    said = []
    for setting in settings(subject):
        mean, error, entropy = excess(subject, setting, mistaken=True)
        figures = f"{setting}: {entropy + mean:.4f} +- {error:.4f} nats for at least {entropy:.4f}"
        require(mean >= -ERRORS * error, figures)
        said.append(figures)
    return "; ".join(said)


@LAWS.law(needs=DiffusionObjective, heavy=True, against=_without_bound)
def tight_for_each_text(subject: Subject) -> Figures:
    """The bound of the exact network, summed over noise levels and all noisy sequences, is -log p
    of each sequence; up to 0.02 nats for a bound of discrete steps.
    """
    law = two_token_law()
    for setting in settings(subject):
        objective = make(subject, setting.exact(law))
        assert isinstance(objective, DiffusionObjective)
        steps, x0 = objective.exact_schedule, law.sequences()
        if isinstance(steps, Stepwise):
            found, allowed = stepped_bound(objective, x0, steps), 0.02
        else:
            found, allowed = integrated_bound(objective, x0), 1e-6
        figures = agree(f"a bound {setting}", found, -law.log_prob(x0), allowed)
    return figures


@LAWS.law(needs=DiffusionObjective, against=_without_bound)
def equals_nelbo(subject: Subject) -> Figures:
    """row_loss equals that of core's nelbo for any logits; up to 1% with discrete time steps."""
    for setting in settings(subject):
        model, _ = setting.tiny(VOCABULARY)
        objective, generic = make(subject, model), Nelbo(model)
        assert isinstance(objective, DiffusionObjective)
        process = objective.denoiser.process
        steps = isinstance(objective.exact_schedule, Stepwise)
        states = torch.arange(process.num_states)
        x_t = states[process.changeable(states)].repeat_interleave(VOCABULARY).repeat(4)
        x0 = torch.arange(VOCABULARY).repeat(len(x_t) // VOCABULARY)
        generator = derive_generator("logits")
        shape = (len(x_t), process.num_states)
        logits = torch.randn(shape, generator=generator, dtype=torch.float64)
        for alpha in (0.1, 0.5, 0.9):
            level = torch.full((len(x_t),), alpha, dtype=torch.float64)
            columns = (logits, x_t, x0, level, torch.full_like(level, -0.8))
            found, expected = objective.row_loss(*columns), generic.row_loss(*columns)
            allowed = (1e-2 if steps else 1e-6) * float(expected.abs().max())
            figures = agree(
                f"the loss of a row at alpha {alpha:g} {setting}", found, expected, allowed
            )
    return figures


@LAWS.law(needs=DiffusionObjective, against=_without_bound)
def row_loss_is_no_less_than_zero(subject: Subject) -> Figures:
    """row_loss is at least 0 for any logits and every noise level."""
    lowest = torch.inf
    for setting in settings(subject):
        model, _ = setting.tiny(VOCABULARY)
        objective = make(subject, model)
        assert isinstance(objective, DiffusionObjective)
        process = objective.denoiser.process
        generator = derive_generator("logits")
        states = torch.arange(process.num_states)
        noisy = states[process.changeable(states)]
        x_t = noisy[torch.randint(len(noisy), (200,), generator=generator)]
        x0 = torch.randint(VOCABULARY, (200,), generator=generator)
        logits = 3 * torch.randn((200, process.num_states), generator=generator).double()
        alpha = torch.rand(200, generator=generator, dtype=torch.float64).clamp(1e-3, 1 - 1e-3)
        values = objective.row_loss(logits, x_t, x0, alpha, -torch.ones_like(alpha))
        require(bool(values.isfinite().all()), f"{setting}: a value is not finite")
        lowest = min(lowest, float(values.min()))
        require(lowest > -1e-9, f"{setting}: a value is {lowest:.3g}")
    return f"lowest {lowest:.3g}"


def padded() -> Batch:
    """A batch of sequences in which some tokens do not count."""
    generator = derive_generator("batch")
    x0 = torch.randint(VOCABULARY, (BATCH, LENGTH), generator=generator)
    counted = torch.arange(LENGTH) < torch.tensor([[6], [3], [0], [5]])
    return Batch(x0, counted)


def losses(objective: Objective, batch: Batch, seed: int = 0, first: int = 0) -> dict[str, Loss]:
    """The training loss and both bounds, if there are any."""
    training = {"forward": objective(batch, draws(seed, first=first))}
    if not objective.has_bound:
        return training
    return training | {
        "bound": objective.bound(batch, draws(seed, first=first)),
        "published bound": objective.bound(batch, draws(seed, first=first), protocol="published"),
    }


@LAWS.law()
def per_token(subject: Subject) -> Figures:
    """Losses are finite, [batch, length], 0 where a token does not count, and sum to the total."""
    for setting in settings(subject):
        batch = padded()
        for name, loss in losses(make(subject, setting.tiny(VOCABULARY)[0]), batch).items():
            where = f"{name} {setting}"
            shape = tuple(loss.per_token.shape)
            expected = tuple(batch.x0.shape)
            require(shape == expected, f"{where}: per_token is {shape} of {expected}")
            require(bool(loss.per_token.isfinite().all()), f"{where}: a value is not finite")
            left = float(loss.per_token[~batch.mask].abs().max())
            require(left == 0, f"{where}: a token that does not count has {left:.3g}")
            total = loss.per_token.double().sum()
            agree(
                f"the total of {where}", loss.total.double(), total, 1e-4 * float(total.abs() + 1)
            )
            require(not loss.per_token.requires_grad, f"{where}: per_token has a gradient")
    return None


@LAWS.law()
def same_draws_same_loss(subject: Subject) -> Figures:
    """Losses depend only on the batch and its draws."""
    for setting in settings(subject):
        batch = padded()
        objective = make(subject, setting.tiny(VOCABULARY)[0])
        torch.manual_seed(1)
        before = losses(objective, batch)
        torch.manual_seed(2)
        for name, loss in losses(objective, batch).items():
            same = torch.equal(loss.per_token, before[name].per_token)
            require(same, f"{name} {setting}: equal draws give another loss")
        other = losses(objective, batch, seed=1)
        if objective.has_bound and objective.noise_levels:
            changed = not torch.equal(other["bound"].per_token, before["bound"].per_token)
            require(changed, f"bound {setting}: other draws give the same loss")
    return None


@LAWS.law()
def parts_add_up(subject: Subject) -> Figures:
    """The loss of each sequence depends on its place in the global batch, not on which other
    sequences are read with it.
    """
    worst = 0.0
    for setting in settings(subject):
        batch = padded()
        objective = make(subject, setting.tiny(VOCABULARY)[0])
        places = [(0, 1), (1, 3), (3, BATCH)]
        parts = [
            losses(objective, Batch(batch.x0[first:last], batch.mask[first:last]), first=first)
            for first, last in places
        ]
        for name, loss in losses(objective, batch).items():
            found = torch.cat([part[name].per_token for part in parts])
            worst = max(worst, float((found - loss.per_token).abs().max()))
            allowed = 1e-4 * float(loss.per_token.abs().max() + 1)
            agree(f"{name} in parts {setting}", found, loss.per_token, allowed)
            if loss.times is not None:
                times = [part[name].times for part in parts]
                same = torch.equal(torch.cat([t for t in times if t is not None]), loss.times)
                require(same, f"{name} {setting}: the times in parts are others")
    return f"differ by at most {worst:.1e} nats"


@final
class Listener(Conditional, Sighted):
    """A wrapper of a network that requires every call to pass the batch's labels and documents.

    A call with some of the sequences has to pass those of the same sequences.
    """

    def __init__(self, network: Backbone, expected: Conditions) -> None:
        super().__init__()
        self.network, self.expected = network, expected

    @property
    def decoder(self) -> nn.Module:
        return self.network.decoder

    def encode(
        self,
        inputs: Inputs,
        sigma: Noise | None,
        labels: Labels | None = None,
        visibility: Visibility | None = None,
    ) -> Hidden:
        """Features of the wrapped network, once the labels and documents are checked."""
        tokens = inputs if isinstance(inputs, Tensor) else inputs.ids
        read = self.expected["labels"]
        if labels is not None and len(tokens) < len(read):
            read = read[torch.isin(read, labels)]  # each sequence has a label of its own
        right = labels is not None and torch.equal(labels, self.expected["labels"][read])
        require(right, "a call of the network is not told the labels of the batch")
        self._require_apart(tokens, self.expected["documents"][read], visibility)
        told = {"visibility": visibility} if isinstance(self.network, Sighted) else {}
        return self.network.encode(inputs, sigma, **told)

    def _require_apart(
        self, tokens: Tensor, documents: Documents, visibility: Visibility | None
    ) -> None:
        """No token sees one of another document; a network may read a text several times."""
        said = "a call of the network is not told the documents of the batch"
        require(visibility is not None, said)
        assert visibility is not None, "see require"
        seen = visibility.dense(tokens.shape[:2], tokens.device)
        of = documents.repeat(1, tokens.shape[1] // documents.shape[1])
        require(not bool((seen & (of[:, :, None] != of[:, None])).any()), said)
        require(bool(seen.any(-1).all()), "a token of a call of the network sees nothing")


@LAWS.law()
def tells_the_network(subject: Subject) -> Figures:
    """Every call of the network is told the labels and documents of the batch."""
    sequences, places = torch.arange(BATCH)[:, None], torch.arange(LENGTH)
    documents = places // (1 + sequences)  # others in each sequence
    batch = padded()._replace(labels=torch.arange(BATCH), documents=documents)
    for setting in settings(subject):
        model, network = setting.tiny(VOCABULARY)
        listener = Listener(network, batch.conditions)
        objective = make(subject, model.with_backbone(listener))
        losses(objective, batch)
        if isinstance(objective, Guessing):
            objective.guesses(batch, draws())
    return None


@LAWS.law()
def leaves_given_tokens_clean(subject: Subject) -> Figures:
    """The network reads tokens that the batch gives without noise, in training and in bounds."""
    batch = padded()
    batch = batch._replace(given=~batch.mask)
    for setting in settings(subject):
        model, _ = setting.tiny(VOCABULARY)
        objective = make(subject, model.watched(partial(_require_clean, batch)))
        for name, loss in losses(objective, batch).items():
            left = float(loss.per_token[~batch.mask].abs().max())
            require(left == 0, f"{name} {setting}: a token that is given has {left:.3g}")
    return None


def _require_clean(batch: Batch, inputs: Inputs, alpha: Noise) -> None:
    """Of inputs of core's own kinds; a network may read several versions of a text in a row."""
    parts: list[Inputs] = [inputs]
    if isinstance(inputs, Tensor):
        parts = [*inputs.chunk(max(1, inputs.shape[1] // batch.x0.shape[1]), dim=1)]
    for part in parts:
        read = _tensors(part)
        if read and read[0].shape[:2] == batch.x0.shape:
            clean = all(map(torch.equal, read, _tensors(batch.kept(part))))
            require(clean, "the network reads noise in place of a token that the batch gives")


def _tensors(inputs: Inputs) -> list[Tensor]:
    """The tensors of inputs of core's own kinds; none of an author's."""
    if isinstance(inputs, TopTokens):
        return [*inputs]
    return [inputs] if isinstance(inputs, Tensor) else []


@LAWS.law()
def gradients(subject: Subject) -> Figures:
    """The gradient of the training loss is finite and not 0; without counted tokens, it is 0."""
    for setting in settings(subject):
        model, network = setting.tiny(VOCABULARY)
        objective = make(subject, model).train()
        batch = padded()
        found = _gradient(objective, network, batch)
        require(bool(found.isfinite().all()), f"{setting}: a gradient is not finite")
        require(bool(found.abs().max() > 0), f"{setting}: all gradients are 0")
        nothing = batch._replace(mask=torch.zeros_like(batch.mask))
        none = _gradient(objective, network, nothing)
        require(bool((none == 0).all()), f"{setting}: tokens that do not count have a gradient")
        network.zero_grad()
        if objective.has_bound:
            loss = objective.bound(batch, draws())
            require(bool(loss.total.isfinite()), f"{setting}: the bound is not finite")
    return None


def _gradient(objective: Objective, network: nn.Module, batch: Batch) -> Tensor:
    network.zero_grad()
    total = objective(batch, draws()).total
    if total.requires_grad:
        total.backward()
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    return torch.cat([grad.flatten() for grad in grads]) if grads else torch.zeros(1)
