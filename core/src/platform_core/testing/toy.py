"""Distributions of text small enough to enumerate, and networks that predict them exactly.

A `ToyLaw` is a table of the probabilities of all sequences. `ExactDenoiser` is the network that a
network trained on such text approximates; `integrated_bound` computes the expectation and integral
of an objective without Monte Carlo. The laws of `platform_core.testing` and the platform's own
tests use this module.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from platform_core.backbone import Backbone, Sighted
from platform_core.categorical import KeepAll, Truncation
from platform_core.model import Denoiser, Model
from platform_core.objective import DiffusionObjective, Noised
from platform_core.parameterization import Mean, Parameterization
from platform_core.process import LOG_ZERO, Diffusion, Mixing, log_one_hot
from platform_core.schedule import LogLinear, Schedule, Stepwise
from platform_core.types import (
    Batch,
    Hidden,
    Inputs,
    Labels,
    LogProbs,
    Noise,
    Selected,
    Tokens,
    TopTokens,
    tensor,
)
from platform_core.visibility import Visibility


class ToyLaw:
    """A distribution of sequences; `probs` has shape [tokens] * length."""

    def __init__(self, probs: Tensor) -> None:
        self.probs = probs / probs.sum()
        self.length, self.num_tokens = probs.dim(), probs.shape[0]

    def sequences(self) -> Tokens:
        """Every sequence, `[tokens ** length, length]`."""
        return all_sequences(self.num_tokens, self.length)

    def log_prob(self, x0: Tokens) -> Tensor:
        """Log-probability of each sequence."""
        return self.probs[tuple(x0.unbind(-1))].log()

    def log_x0(
        self, x_t: Tokens, alpha: Tensor, process: Diffusion, *, own_evidence: bool = False
    ) -> LogProbs:
        """log p(x_0 at l | x_t elsewhere) for every position l; `own_evidence` adds x_t at l.

        The signal level `alpha` is one for all, `[batch, 1]` or `[batch, length]`.
        """
        if not process.time_conditioned:
            # A mask holds no evidence of x_0, a token determines it: the signal level cancels, so
            # any level except 0 and 1 will do.
            alpha = torch.tensor(0.5)
        if process.num_states**self.length < len(x_t) and (alpha == alpha.flatten()[0]).all():
            states = all_sequences(process.num_states, self.length)
            table = self._log_x0(states, alpha.flatten()[:1], process, own_evidence=own_evidence)
            return table[index_of(x_t, process.num_states)]
        return self._log_x0(x_t, alpha, process, own_evidence=own_evidence)

    def log_x0_seen(
        self,
        x: Tokens,
        alpha: Tensor,
        process: Diffusion,
        seen: Selected,
        positions: Tokens,
        *,
        own_evidence: bool = False,
    ) -> LogProbs:
        """log p(x_0 where the token stands | the tokens that it sees, but for those of its place).

        Args:
            x: tokens, clean or noisy, `[batch, number]`; several may stand at one place of a text.
            alpha: signal level of each, `[batch, number]`.
            process: the noise.
            seen: which tokens each sees, `[batch, number, number]`.
            positions: where each stands in the text, `[batch, number]`.
            own_evidence: whether a token is read itself.
        """
        noisy = marginals(process, alpha.flatten().double()).view(
            *alpha.shape, -1, process.num_states
        )
        places = x[:, :, None, None].expand(-1, -1, self.num_tokens, -1)
        evidence = noisy.gather(-1, places).squeeze(-1)  # q(x | x_0 = v), [batch, number, tokens]
        laws = []
        for query in range(x.shape[1]):
            joint = self.probs.expand(len(x), *self.probs.shape)
            for key in range(x.shape[1]):
                own = own_evidence and key == query
                elsewhere = positions[:, key] != positions[:, query]
                used = seen[:, query, key] & (elsewhere | own)
                told = torch.where(used[:, None], evidence[:, key], 1.0)
                joint = joint * _along(told, positions[:, key], self.length)
            laws.append(_marginal(joint, positions[:, query]))
        law = torch.stack(laws, dim=1)
        log_law = (law / law.sum(-1, keepdim=True)).log().clamp_min(LOG_ZERO)
        extra = process.num_states - self.num_tokens
        return nn.functional.pad(log_law, (0, extra), value=LOG_ZERO)

    def _log_x0(
        self, x_t: Tokens, alpha: Tensor, process: Diffusion, *, own_evidence: bool
    ) -> LogProbs:
        # q(x_t | x_0 = v) for every token v, [batch, length, tokens].
        if alpha.dim() == 2 and alpha.shape[1] > 1:  # a level for each position
            each = marginals(process, alpha.flatten().double())
            each = each.view(len(alpha), self.length, *each.shape[1:])
            each = each.expand(len(x_t), -1, -1, -1)
            places = x_t[:, :, None, None].expand(-1, -1, self.num_tokens, -1)
            evidence = each.gather(-1, places).squeeze(-1)
        else:
            noisy = marginals(process, alpha.reshape(-1).double()).expand(len(x_t), -1, -1)
            places = x_t[:, None].expand(-1, self.num_tokens, -1)
            evidence = noisy.gather(-1, places).transpose(1, 2)
        laws = []
        for position in range(self.length):
            joint = self.probs.expand(x_t.shape[0], *self.probs.shape)
            for other in range(self.length):
                if other != position or own_evidence:
                    shape = [-1] + [1] * self.length
                    shape[1 + other] = self.num_tokens
                    joint = joint * evidence[:, other].view(shape)
            rest = [1 + other for other in range(self.length) if other != position]
            laws.append(joint.sum(rest) if rest else joint)
        law = torch.stack(laws, dim=1)
        log_law = (law / law.sum(-1, keepdim=True)).log().clamp_min(LOG_ZERO)
        extra = process.num_states - self.num_tokens
        return nn.functional.pad(log_law, (0, extra), value=LOG_ZERO)


def _along(told: Tensor, position: Tokens, length: int) -> Tensor:
    """Numbers of each token, `[batch, tokens]`, along the axis of their place in a joint law."""
    batch, tokens = told.shape
    there = nn.functional.one_hot(position, length).bool()
    joint = told.new_ones(batch, *[1] * length)
    for place in range(length):
        shape = [batch] + [1] * length
        shape[1 + place] = tokens
        joint = joint * torch.where(there[:, place, None], told, 1.0).view(shape)
    return joint


def _marginal(joint: Tensor, position: Tokens) -> Tensor:
    """The law of the token at each text's place, `[batch, tokens]`, from joint laws."""
    length = joint.dim() - 1
    places = [
        joint.sum([1 + other for other in range(length) if other != place]) if length > 1 else joint
        for place in range(length)
    ]
    return torch.stack(places, dim=1)[torch.arange(len(joint)), position]


class Table(Backbone):
    """A network whose `encode` returns the logits; its decoder is the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = nn.Identity()
        self.calls = 0

    @property
    def decoder(self) -> nn.Module:
        return self.identity


class ExactDenoiser(Table, Sighted):
    """The optimal network for a distribution: its conditionals, read from a table.

    Args:
        own_evidence: whether to predict p(x_0 | x_t); if not, x_t of the position itself is left
            out of the condition.
    """

    def __init__(self, law: ToyLaw, process: Diffusion, *, own_evidence: bool = False) -> None:
        super().__init__()
        self.law, self.process, self.own_evidence = law, process, own_evidence

    def encode(
        self,
        inputs: Inputs,
        sigma: Noise | None,
        labels: Labels | None = None,
        visibility: Visibility | None = None,
    ) -> Hidden:
        """Log-probabilities of the clean tokens, float64, in the form that `logits` gives them."""
        self.calls += 1
        assert isinstance(inputs, Tensor), "a table is read by tokens"
        alpha = torch.tensor(0.5) if sigma is None else (-sigma.double()).exp()
        if visibility is None and inputs.shape[1] == self.law.length:
            log_x0 = self.law.log_x0(inputs, alpha, self.process, own_evidence=self.own_evidence)
            return self.logits(log_x0, inputs, alpha)
        visibility = visibility or Visibility(lambda text, query, key: key >= 0)
        positions = visibility.positions
        if positions is None:
            positions = torch.arange(inputs.shape[1])[None]
        log_x0 = self.law.log_x0_seen(
            inputs,
            alpha.expand(inputs.shape),
            self.process,
            visibility.dense(inputs.shape, inputs.device).expand(len(inputs), -1, -1),
            positions.expand(inputs.shape),
            own_evidence=self.own_evidence,
        )
        return self.logits(log_x0, inputs, alpha)

    def logits(self, log_x0: LogProbs, x_t: Tokens, alpha: Tensor) -> Hidden:
        """What `encode` returns where the log-probabilities of the clean tokens are these."""
        return log_x0


class ExactScore(ExactDenoiser):
    """`ExactDenoiser` for a parameterization whose probabilities are exp(logits) / vocab_size."""

    def logits(self, log_x0: LogProbs, x_t: Tokens, alpha: Tensor) -> Hidden:
        """Log-probabilities relative to the uniform distribution."""
        return log_x0 + math.log(self.process.vocab_size)


class ExactLogScore(ExactDenoiser):
    """`ExactDenoiser` for a parameterization whose logits are the log-score."""

    def logits(self, log_x0: LogProbs, x_t: Tokens, alpha: Tensor) -> Hidden:
        """log q_t(y) / q_t(x_t)."""
        return self.process.log_score(log_x0, x_t, alpha)


class ExactPredictor(Table):
    """The optimal left-to-right network: it reads a start token and a sequence, and predicts each
    next token.
    """

    def __init__(self, law: ToyLaw, num_states: int) -> None:
        super().__init__()
        self.law, self.num_states = law, num_states

    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        """Log-probabilities of the token after each position, float64."""
        assert isinstance(inputs, Tensor), "a table is read by tokens"
        self.calls += 1
        laws = []
        for place in range(inputs.shape[1]):
            later = list(range(place + 1, self.law.length))
            table = self.law.probs.sum(later) if later else self.law.probs
            laws.append(table[tuple(inputs[:, 1 : place + 1].unbind(1))].expand(len(inputs), -1))
        law = torch.stack(laws, dim=1)
        log_law = (law / law.sum(-1, keepdim=True)).log().clamp_min(LOG_ZERO)
        extra = self.num_states - self.law.num_tokens
        return nn.functional.pad(log_law, (0, extra), value=LOG_ZERO)


class Mistaken(Table, Sighted):
    """A network whose logits are another's plus fixed noise for each position and token there.

    Args:
        right: the other network, whose `encode` returns the logits.
        shape: `(length, num_states)`.
        scale: standard deviation of the noise, in nats.
    """

    def __init__(self, right: Backbone, shape: tuple[int, int], scale: float = 0.5) -> None:
        super().__init__()
        length, num_states = shape
        generator = torch.Generator().manual_seed(7)
        noise = torch.randn(
            length, num_states, num_states, generator=generator, dtype=torch.float64
        )
        self.right, self.mistakes = right, scale * noise

    def encode(
        self,
        inputs: Inputs,
        sigma: Noise | None,
        labels: Labels | None = None,
        visibility: Visibility | None = None,
    ) -> Hidden:
        """The logits of `right` plus the noise."""
        assert isinstance(inputs, Tensor), "a table is read by tokens"
        places = torch.arange(inputs.shape[1]) % len(self.mistakes)
        told = {} if visibility is None else {"visibility": visibility}
        return self.right.encode(inputs, sigma, **told) + self.mistakes[places, inputs]


class TinyNetwork(Sighted):
    """A small trainable network with one mixing layer and no attention."""

    def __init__(self, num_states: int, width: int = 8, *, tied: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_states, width)
        self.mixing = nn.Linear(2 * width + 1, width)
        self.head = nn.Linear(width, num_states, bias=not tied)
        if tied:
            self.head.weight = self.embedding.weight
        self.calls = 0

    @property
    def decoder(self) -> nn.Module:
        return self.head

    def encode(
        self,
        inputs: Inputs,
        sigma: Noise | None,
        labels: Labels | None = None,
        visibility: Visibility | None = None,
    ) -> Hidden:
        """Features of each token, from its embedding, the average of what it sees and the level."""
        self.calls += 1
        features = self._embedded(inputs)
        average = features.mean(1, keepdim=True).expand_as(features)
        if visibility is not None:
            seen = visibility.dense(features.shape[:2], features.device).to(features.dtype)
            average = seen @ features / seen.sum(-1, keepdim=True)
        level = torch.zeros(features.shape[0], 1) if sigma is None else sigma
        level = level.to(features.dtype)[..., None].expand(*features.shape[:2], 1)
        hidden: Tensor = self.mixing(torch.cat((features, average, level), dim=-1))
        return hidden.tanh()

    def _embedded(self, inputs: Inputs) -> Tensor:
        table = self.embedding.weight
        if isinstance(inputs, TopTokens):
            return (inputs.weights[..., None].to(table.dtype) * table[inputs.ids]).sum(-2)
        inputs = tensor(inputs)
        return inputs.to(table.dtype) @ table if inputs.is_floating_point() else table[inputs]


class CausalNetwork(Backbone):
    """A small trainable causal network that encodes whole sequences only, without noise level."""

    def __init__(self, num_states: int, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_states, width)
        self.mixing = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, num_states)
        self.calls = 0

    @property
    def decoder(self) -> nn.Module:
        return self.head

    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        """Features of each token, from its embedding and the average of the embeddings up to it."""
        self.calls += 1
        features = self.embedding(inputs)
        places = torch.arange(1, features.shape[1] + 1, device=features.device)
        average = features.cumsum(1) / places[:, None]
        hidden: Tensor = self.mixing(torch.cat((features, average), dim=-1))
        return hidden.tanh()


def model(
    process: Diffusion,
    backbone: Backbone,
    schedule: Schedule | None = None,
    parameterization: Parameterization | None = None,
) -> Model:
    """A model, by default with alpha = 1 - t and the parameterization `Mean`."""
    return Model(process, schedule or LogLinear(eps=0), parameterization or Mean(), backbone)


def exact_model(
    law: ToyLaw,
    process: Callable[[int], Diffusion],
    schedule: Schedule | None = None,
    parameterization: Parameterization | None = None,
) -> Model:
    """The model that predicts a distribution exactly."""
    built = process(law.num_tokens)
    return model(built, ExactDenoiser(law, built), schedule, parameterization)


def one_token_law() -> ToyLaw:
    """The distribution (.6, .3, .1) of one token."""
    return ToyLaw(torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64))


def two_token_law() -> ToyLaw:
    """A distribution of two dependent tokens, over a vocabulary of three."""
    return random_law(3, 2, seed=1)


def random_law(num_tokens: int, length: int, *, seed: int) -> ToyLaw:
    """A distribution drawn from the flat Dirichlet distribution."""
    flat = np.random.default_rng(seed).dirichlet(np.ones(num_tokens**length))
    return ToyLaw(torch.from_numpy(flat).reshape([num_tokens] * length))


def all_sequences(num_tokens: int, length: int) -> Tokens:
    """Every sequence, in the order of `itertools.product`."""
    return torch.tensor(list(itertools.product(range(num_tokens), repeat=length)))


def tanh_sinh(step: float = 1 / 16) -> tuple[Tensor, Tensor]:
    """Quadrature nodes in (0, 1) and weights, for functions that are singular at the ends."""
    s = torch.arange(-3.2, 3.2 + step / 2, step, dtype=torch.float64)
    inner = math.pi / 2 * s.sinh()
    nodes = torch.sigmoid(2 * inner)
    weights = step * math.pi / 4 * s.cosh() / inner.cosh().square()
    inside = (nodes > 1e-15) & (nodes < 1 - 1e-15)
    return nodes[inside], weights[inside]


def transition(process: Mixing, x0: Tokens, x_t: Tokens, alpha: Tensor) -> Tensor:
    """q(x_t | x_0) of each position, written out."""
    return alpha * (x_t == x0) + process.noise(x_t, alpha)


def integrated_bound(
    objective: DiffusionObjective, x0: Tokens, low: float = 0.0, high: float = 1.0
) -> Tensor:
    """The bound of each sequence `[n, length]` over signal levels from low to high: every x_t
    enumerated, alpha by quadrature.
    """
    nodes, weights = tanh_sinh()
    return bound_at(objective, x0, low + (high - low) * nodes, (high - low) * weights)


def stepped_bound(objective: DiffusionObjective, x0: Tokens, steps: Stepwise) -> Tensor:
    """The bound of each sequence for a chain of discrete steps: every x_t enumerated, the sum over
    steps.
    """
    t = (torch.arange(steps.num_steps, dtype=torch.float64) + 0.5) / steps.num_steps
    return bound_at(objective, x0, steps.alpha(t), -steps.slope(t) / steps.num_steps)


class AsItIs(Denoiser):
    """A denoiser that tells the network the noise level of every signal level, in float64."""

    def sigma(self, alpha: Noise) -> Noise | None:
        return -alpha.double().log() if self.process.time_conditioned else None


def bound_at(objective: DiffusionObjective, x0: Tokens, nodes: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over signal levels of the bound's integrand, where alpha has slope -1."""
    process, length = objective.denoiser.process, x0.shape[1]
    objective.denoiser = AsItIs(objective.model)
    states = all_sequences(process.num_states, length)
    noisy = marginals(process, nodes)
    bounds = []
    for clean in x0:
        possible = [
            noisy[len(nodes) // 2, clean[place], states[:, place]] for place in range(length)
        ]
        x_t = states[torch.stack(possible).gt(0).all(0)].repeat(len(nodes), 1)
        node = torch.arange(len(nodes)).repeat_interleave(len(x_t) // len(nodes))[:, None]
        alpha, target = nodes[node], clean.expand_as(x_t)
        noised = Noised(x_t, x_t, alpha, -torch.ones_like(alpha))
        features = objective.features(Batch(target, torch.ones_like(x_t, dtype=torch.bool)), noised)
        level = alpha.expand(x_t.shape).flatten()
        logits = objective.model.backbone.decoder(features).flatten(0, 1)
        f = objective.row_loss(
            logits, x_t.flatten(), target.flatten(), level, -torch.ones_like(level)
        )
        chance = noisy[node, clean, x_t].prod(-1)
        bounds.append((weights[node[:, 0]] * chance * f.view(x_t.shape).sum(-1)).sum())
    return torch.stack(bounds)


def reverse_kernel(
    law: ToyLaw,
    process: Diffusion,
    alpha_s: Tensor,
    alpha_t: Tensor,
    truncation: Truncation | None = None,
) -> Tensor:
    """Probabilities `[x_t, x_s]` of one reverse step of whole sequences, with exact predictions."""
    states = all_sequences(process.num_states, law.length)
    log_x0 = (truncation or KeepAll())(law.log_x0(states, alpha_t, process))
    rows = process.posterior(log_x0, states, alpha_s, alpha_t)
    # A token that noise cannot have reached stays, whatever is predicted for it.
    stay = torch.eye(process.num_states, dtype=torch.float64)[states]
    rows = torch.where(process.changeable(states)[..., None], rows, stay)
    chances = [rows[:, position][:, states[:, position]] for position in range(law.length)]
    return torch.stack(chances).prod(0)


def chain_law(
    law: ToyLaw,
    process: Diffusion,
    alphas: Tensor,
    truncation: Truncation | None = None,
) -> Tensor:
    """Probabilities of `all_sequences` after ancestral steps from pure noise along `alphas`."""
    states = all_sequences(process.num_states, law.length)
    if isinstance(process, Mixing):
        noise = process.noise(states, alphas.new_zeros(states.shape))
    else:
        noise = marginals(process, alphas.new_zeros(1))[0, 0][states]
    reached = noise.prod(-1)
    for alpha_t, alpha_s in zip(alphas[:-1], alphas[1:], strict=True):
        kernel = reverse_kernel(law, process, alpha_s, alpha_t, truncation)
        possible = reached > 0  # a step from an impossible state is undefined
        reached = reached[possible] @ kernel[possible]
    return reached


def marginals(process: Diffusion, alpha: Tensor) -> Tensor:
    """q(x_t | x_0) of every token x_0 at each level, `[levels, tokens, states]`, float64.

    This works for any diffusion: the score gives q up to a factor, which normalization determines.
    """
    clean = torch.arange(process.vocab_size).expand(len(alpha), -1)
    certain = log_one_hot(clean, process.num_states, torch.float64)
    level = alpha.double().clamp_min(1e-300)  # at alpha 0 a clean token may have no score
    return process.log_score(certain, clean, level[:, None]).softmax(-1)


def chi_square(outcomes: Tokens, probs: Tensor) -> float:
    """p-value of outcomes against a law; outcomes of probability 0 fail at once."""
    counts = torch.bincount(outcomes.flatten(), minlength=len(probs)).double()
    possible = probs > 0
    assert counts[~possible].sum() == 0, "an impossible outcome was drawn"
    freedom = possible.sum().double() - 1
    if freedom == 0:
        return 1.0
    expected = probs[possible].double() / probs[possible].double().sum() * counts.sum()
    statistic = ((counts[possible] - expected).square() / expected).sum()
    return float(torch.special.gammaincc(freedom / 2, statistic / 2))


def index_of(x: Tokens, num_states: int) -> Tokens:
    """The row of each sequence in `all_sequences(num_states, length)`."""
    place = num_states ** torch.arange(x.shape[-1] - 1, -1, -1)
    return (x * place).sum(-1)


def seeded(seed: int = 0) -> torch.Generator:
    """A generator with a fixed seed."""
    return torch.Generator().manual_seed(seed)


def double(*values: float) -> Tensor:
    """The values as a float64 tensor of one dimension, `[number]`."""
    return torch.tensor(values, dtype=torch.float64)
