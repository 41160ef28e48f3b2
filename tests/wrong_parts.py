"""A plugin of parts that are wrong on purpose, each in one way that a law has to notice.

It is wrong as a plugin, too: it holds its parts itself, so that registering it imports torch.
"""

import torch
from author_parts import Neighbours
from torch import nn

from platform_core.backbone import Backbone, Conditional, Incremental, Reader, Rereader, Sighted
from platform_core.component import Component
from platform_core.draws import derive_generator
from platform_core.hookspecs import hookimpl
from platform_core.objective import Loss, Nelbo, Noised
from platform_core.parameterization import MaskFree, Mean
from platform_core.process import Absorbing, Uniform
from platform_core.sampler import Ancestral, Prompt, Sample, Sampler, Walk
from platform_core.schedule import Cosine, LogLinear, Schedule
from platform_core.types import Batch
from platform_gidd.process import Gidd


class WrongSlope(Cosine):
    """The factor (1 - eps) is forgotten, as in published code."""

    def slope(self, t):
        return super().slope(t) / (1 - self.eps)


class WrongInverse(Cosine):
    """The same factor, forgotten in the inverse."""

    def inverse(self, alpha):
        return super().inverse(alpha) * (1 - self.eps)


class StopsHalfWay(LogLinear):
    """Half of the signal is left."""

    def alpha(self, t):
        return 1 - t / 2

    def slope(self, t):
        return torch.full_like(t, -0.5)

    def inverse(self, alpha):
        return 2 * (1 - alpha)


class Rises(LogLinear):
    """Time runs the other way."""

    def alpha(self, t):
        return t


class BelowZero(LogLinear):
    """Goes on falling after nothing is left."""

    def alpha(self, t):
        return 1 - 1.04 * t


class Narrow(LogLinear):
    """Everything is float32."""

    def alpha(self, t):
        return super().alpha(t).float()


class OfTheBatch(LogLinear):
    """Noise is relative to the largest time."""

    def slope(self, t):
        return super().slope(t) * t / t.max() / (t / t.max())

    def alpha(self, t):
        return 1 - (1 - self.eps) * t / t.max() * t.max().clamp_min(0.99)


class Unnormalised(Uniform):
    """The posterior lacks its denominator."""

    def posterior(self, log_x0, x_t, alpha_s, alpha_t):
        return 0.9 * super().posterior(log_x0, x_t, alpha_s, alpha_t)


class NeverClean(Uniform):
    """A tenth of the signal is lost at every level."""

    def log_score(self, log_x0, x_t, alpha):
        return super().log_score(log_x0, x_t, 0.9 * alpha)


class ForgetsTheEvidence(Uniform):
    """The posterior is q(x_s), whatever x_t is."""

    def posterior(self, log_x0, x_t, alpha_s, alpha_t):
        return alpha_s[..., None] * log_x0.exp() + (1 - alpha_s[..., None]) / self.num_states


class Overconfident(Uniform):
    """The posterior takes laws of clean tokens for sharper than they are."""

    def posterior(self, log_x0, x_t, alpha_s, alpha_t):
        return super().posterior((2 * log_x0).log_softmax(-1), x_t, alpha_s, alpha_t)


class WrongReverse(Uniform):
    """The analytic step to another level."""

    def reverse(self, log_score, x_t, alpha_s, alpha_t):
        return super().reverse(log_score, x_t, alpha_s.sqrt(), alpha_t)


class AlwaysAnother(Uniform):
    """Noise never draws the token itself again."""

    def corrupt(self, x0, alpha, generator):
        moved = torch.rand(x0.shape, generator=generator, dtype=torch.float64) > alpha
        other = torch.randint(1, self.num_states, x0.shape, generator=generator)
        return torch.where(moved, (x0 + other) % self.num_states, x0)


class AllAtOnce(Absorbing):
    """All tokens of a text are masked together."""

    def corrupt(self, x0, alpha, generator):
        kept = torch.rand((len(x0), 1), generator=generator, dtype=torch.float64) < alpha
        return torch.where(kept, x0, self.mask_id)


class Squared(Uniform):
    """alpha is not what is kept."""

    def log_score(self, log_x0, x_t, alpha):
        return super().log_score(log_x0, x_t, alpha**2)


class ScoreOfAnother(Uniform):
    """The score lacks its denominator."""

    def log_score(self, log_x0, x_t, alpha):
        score = super().log_score(log_x0, x_t, alpha)
        return score - score[..., :1]


class WrongRate(Uniform):
    """The rate lacks 1 / alpha."""

    def rate(self, x_t, alpha, slope):
        return super().rate(x_t, alpha, slope) * alpha


class WrongNoise(Uniform):
    """The noise on a token is that of one state too few."""

    def noise(self, tokens, alpha):
        return super().noise(tokens, alpha) * self.num_states / (self.num_states - 1)


class ForgetsWhatWasThere(Uniform):
    """What noise adds is all the noise there is."""

    def added(self, tokens, alpha_s, alpha_t):
        return self.noise(tokens, alpha_t)


class DriftsAnotherWay(Gidd):
    """The prior moves, and its rate is that of one that stands still."""

    def noise_slope(self, tokens, alpha):
        return -self.noise(tokens, alpha) / (1 - alpha)


class StaleNoise(Gidd):
    """Noise is drawn from the prior of another level."""

    def sample_noise(self, shape, alpha, generator):
        return super().sample_noise(shape, alpha**2, generator)


class FromAnywhere(Neighbours):
    """Jumps from far tokens are as frequent as those from neighbours, as if noise were a prior."""

    def rates(self, x_t, alpha, slope):
        return super().rates(x_t, alpha, slope).clamp_min(0).mean(-1, keepdim=True)


class WholeWay(Neighbours):
    """The evidence of x_t is that of the whole way from clean text, not of the step."""

    def reach(self, x_t, alpha_s, alpha_t):
        return super().reach(x_t, torch.ones_like(alpha_s), alpha_t)


class OneLevel(Uniform):
    """The first position's level is that of the whole text."""

    def log_score(self, log_x0, x_t, alpha):
        return super().log_score(log_x0, x_t, alpha[..., :1])


class OddPrior(Uniform):
    """Noise is drawn from two tokens."""

    def sample_prior(self, shape, generator):
        return torch.randint(2, shape, generator=generator)


class NoiseOfAnother(Uniform):
    """The law of the noise is that at another level."""

    def log_noised(self, x_t, x0, alpha):
        return super().log_noised(x_t, x0, alpha**2)


class LearnedPower(nn.Module):
    """alpha = (1 - t)^p with p learned."""

    def __init__(self):
        super().__init__()
        self.log_power = nn.Parameter(torch.zeros((), dtype=torch.float64))

    @property
    def power(self):
        return self.log_power.exp()


class Unmoved(Absorbing, LearnedPower):
    """Noise at alpha^p, of which training is told that it does not depend on p."""

    def __init__(self, vocab_size: int):
        LearnedPower.__init__(self)
        Absorbing.__init__(self, vocab_size, time_conditioned=True)

    def noise(self, tokens, alpha):
        return super().noise(tokens, alpha**self.power)

    def log_score(self, log_x0, x_t, alpha):
        return super().log_score(log_x0, x_t, alpha**self.power)

    def log_noised(self, x_t, x0, alpha):
        return super().log_noised(x_t, x0, alpha).detach()


class HeldBack(Schedule, LearnedPower):
    """A slope that passes no gradient on."""

    def alpha(self, t):
        return (1 - t) ** self.power

    def slope(self, t):
        return -self.power.detach() * (1 - t) ** (self.power - 1)

    def inverse(self, alpha):
        return 1 - alpha ** (1 / self.power)


class EverythingChanges(Absorbing):
    """Clean tokens are said to change."""

    def changeable(self, x_t):
        return torch.ones_like(x_t, dtype=torch.bool)


class HastyDraw(Uniform):
    """Opened tokens are always drawn anew."""

    def draw_open(self, log_x0, x_t, alpha_s, alpha_t, *, generator):
        return torch.multinomial(log_x0.exp(), 1, generator=generator).squeeze(-1)


class GlobalNoise(Absorbing):
    """Noise of the process's own."""

    def corrupt(self, x0, alpha, generator):
        return torch.where(torch.rand(x0.shape) < alpha, x0, self.mask_id)


class Homeless(Absorbing):
    """Its default sampler does not exist."""


class Logits(Mean):
    """Logits are taken for log-probabilities."""

    def log_x0(self, logits, x_t, alpha, process):
        return logits.double()


class MaskToo(MaskFree):
    """The softmax is over the mask, too."""

    def log_x0(self, logits, x_t, alpha, process):
        return logits.log_softmax(-1)


class CarriesAnother(MaskFree):
    """Clean tokens become their neighbours."""

    def log_x0(self, logits, x_t, alpha, process):
        law = logits[..., : process.vocab_size].log_softmax(-1)
        law = nn.functional.pad(law, (0, 1), value=-1e6)
        other = nn.functional.one_hot((x_t + 1) % process.vocab_size, process.num_states)
        clean = ~process.changeable(x_t)
        return torch.where(clean[..., None], other.double().log().clamp_min(-1e6), law)


class Shifted(Mean):
    """The score has another factor."""

    def log_score(self, logits, x_t, alpha, process):
        return super().log_score(logits, x_t, alpha, process) + 1


class Sharpened(Mean):
    """The law is that of twice the logits."""

    def log_x0(self, logits, x_t, alpha, process):
        return (2 * logits.double()).log_softmax(-1)


class HalfPrecision(Mean):
    """The softmax is in the precision of the logits."""

    def log_x0(self, logits, x_t, alpha, process):
        return logits.log_softmax(-1)


class InPlace(Mean):
    """Works in the memory of the logits."""

    def log_x0(self, logits, x_t, alpha, process):
        return super().log_x0(
            logits.sub_(1) if not logits.requires_grad else logits, x_t, alpha, process
        )


class NoGradient(Mean):
    """The prediction is constant to the gradient."""

    def log_x0(self, logits, x_t, alpha, process):
        return super().log_x0(logits.detach() + 0 * logits.sum(), x_t, alpha, process)


class PredictsMasks(Mean):
    """The mode may be a mask."""

    def most_likely(self, logits, x_t, alpha, process):
        return self.log_x0(logits, x_t, alpha, process).argmax(-1)


class GreedyStep(Mean):
    """Steps take the most likely token."""

    def draw_open(self, logits, x_t, alpha_s, alpha_t, *, process, truncation, generator):
        return self.most_likely(logits, x_t, alpha_t, process)


class HalfTheBound(Nelbo):
    """A factor is forgotten."""

    def row_loss(self, logits, x_t, x0, alpha, slope):
        return super().row_loss(logits, x_t, x0, alpha, slope) / 2


class TooHigh(Nelbo):
    """A bound, but not of the process at hand."""

    def row_loss(self, logits, x_t, x0, alpha, slope):
        return super().row_loss(logits, x_t, x0, alpha, slope) * 1.2


class Negative(Nelbo):
    """The term that keeps a row above 0 is missing."""

    def row_loss(self, logits, x_t, x0, alpha, slope):
        return super().row_loss(logits, x_t, x0, alpha, slope) - 1


class CountsPadding(Nelbo):
    """All tokens count."""

    def forward(self, batch, draws):
        everything = torch.ones_like(batch.mask)
        return super().forward(batch._replace(mask=everything), draws)


class OwnNoise(Nelbo):
    """Draws from elsewhere."""

    def bound(self, batch, draws, protocol="exact"):
        loss = super().bound(batch, draws, protocol)
        factor = 1 + torch.rand(()) / 100
        return Loss(loss.total * factor, loss.per_token * factor)


class Untold(Nelbo):
    """What is known of the texts is lost."""

    def forward(self, batch, draws):
        return super().forward(Batch(batch.x0, batch.mask), draws)


class NoisesPrompts(Nelbo):
    """Tokens that are given get noise like all others."""

    def forward(self, batch, draws):
        return super().forward(batch._replace(given=None), draws)


class NoiseOfTheBatch(Nelbo):
    """Noise is drawn for all sequences of a batch at once."""

    def noised(self, x0, draws):
        t = draws.times(len(x0), self.t_min)
        alpha, generator = self.schedule.alpha(t), derive_generator(draws.seed, draws.first)
        x_t = self.denoiser.process.corrupt(x0, alpha, generator)
        return Noised(x_t, x_t, alpha, self.schedule.slope(t))


class Detached(Nelbo):
    """Nothing to learn from."""

    def forward(self, batch, draws):
        loss = super().forward(batch, draws)
        return Loss(loss.total.detach(), loss.per_token)


class Wrapped(Sampler):
    """The ancestral sampler, spoilt."""

    def __init__(self, steps: int = 128) -> None:
        self.ancestral = Ancestral(steps)

    def __call__(self, model, shape, generator, prompt=None):
        return self.ancestral(model, shape, generator, prompt)


class Biased(Wrapped):
    """Every 25th text is the same."""

    def __call__(self, model, shape, generator, prompt=None):
        tokens, nfe, _ = super().__call__(model, shape, generator, prompt)
        return Sample(tokens.clone().index_fill_(0, torch.arange(0, len(tokens), 25), 0), nfe)


class Twins(Wrapped):
    """Every text stands twice in a batch."""

    def __call__(self, model, shape, generator, prompt=None):
        tokens, nfe, _ = super().__call__(model, shape, generator, prompt)
        return Sample(tokens[torch.arange(len(tokens)) // 2], nfe)


class GlobalSeed(Wrapped):
    """Draws from the global generator."""

    def __call__(self, model, shape, generator, prompt=None):
        own = torch.Generator().manual_seed(int(torch.randint(100, ())))
        return super().__call__(model, shape, own, prompt)


class Remembers(Wrapped):
    """Draws go on where the last sample ended."""

    def __init__(self, steps: int = 128) -> None:
        super().__init__(steps)
        self.number = 0

    def __call__(self, model, shape, generator, prompt=None):
        self.number += 1
        own = torch.Generator().manual_seed(self.number)
        return super().__call__(model, shape, own, prompt)


class IgnoresPrompts(Wrapped):
    """A prompt is not read."""

    def __call__(self, model, shape, generator, prompt=None):
        return super().__call__(model, shape, generator)


class PastesPrompts(Wrapped):
    """A prompt is put over what was drawn without it."""

    def __call__(self, model, shape, generator, prompt=None):
        tokens, nfe, _ = super().__call__(model, shape, generator)
        if isinstance(prompt, Prompt):
            tokens = torch.where(prompt.fixed, prompt.tokens, tokens)
        return Sample(tokens, nfe)


class Miscounts(Wrapped):
    """The last call is not counted."""

    def __call__(self, model, shape, generator, prompt=None):
        drawn = super().__call__(model, shape, generator, prompt)
        return Sample(drawn.tokens, drawn.nfe - 1)


class LeavesMasks(Wrapped):
    """There is no last call."""

    def __call__(self, model, shape, generator, prompt=None):
        walk = Walk.begin(
            model, self.ancestral.truncation, shape=shape, generator=generator, prompt=prompt
        )
        half, none = torch.tensor([[[0.5]], [[1e-4]]], dtype=torch.float64)
        return walk.end(walk.step(walk.noise, half, none))


class Network(Backbone):
    """A table, the mean of the text (so far, if causal) and the noise level."""

    def __init__(self, num_states: int, causal: bool, time_conditioned: bool) -> None:
        super().__init__()
        self.causal = causal
        self.table = nn.Parameter(torch.randn(num_states, 8))
        self.level = nn.Linear(1, 8) if time_conditioned else None
        self.head = nn.Linear(8, num_states)

    @property
    def decoder(self):
        return self.head

    def embedded(self, inputs):
        if isinstance(inputs, tuple):
            return (inputs.weights[..., None] * self.table[inputs.ids]).sum(-2)
        return inputs @ self.table if inputs.is_floating_point() else self.table[inputs]

    def around(self, features):
        places = torch.arange(1, features.shape[1] + 1)[:, None]
        causal = features.cumsum(1) / places
        return causal if self.causal else features.mean(1, keepdim=True)

    def encode(self, inputs, sigma):
        features = self.embedded(inputs)
        features = (features + 2 * self.around(features)).tanh()
        return features if self.level is None else features + self.level(sigma)[:, None]


class UnusedWeight(Network):
    """A weight has no part in anything."""

    def __init__(self, num_states: int, causal: bool, time_conditioned: bool) -> None:
        super().__init__(num_states, causal, time_conditioned)
        self.unused = nn.Parameter(torch.zeros(3))


class LooksAhead(Network):
    """The mean is of the whole text, always."""

    def around(self, features):
        return features.mean(1, keepdim=True)


class Blinkered(Network):
    """The mean is of the text so far, always."""

    def around(self, features):
        return features.cumsum(1)


class DoubleLogits(Network):
    """Logits are float64."""

    def forward(self, inputs, sigma):
        return super().forward(inputs, sigma).double()


class AnotherForward(Network):
    """forward does more than encode and decoder."""

    def forward(self, inputs, sigma):
        return super().forward(inputs, sigma) * 1.1


class SoftAsHalf(Network):
    """Probabilities are read at half their weight."""

    def embedded(self, inputs):
        soft = isinstance(inputs, tuple) or inputs.is_floating_point()
        return super().embedded(inputs) * (0.5 if soft else 1)


class Forgetful(Network):
    """A number that it reads is in no state dict."""

    def __init__(self, num_states: int, causal: bool, time_conditioned: bool) -> None:
        super().__init__(num_states, causal, time_conditioned)
        self.scale = float(torch.rand(())) + 0.5

    def embedded(self, inputs):
        # Weights are the same after loading; this is not.
        return super().embedded(inputs) * self.scale


class Deaf(Network):
    """The noise level is given and not read."""

    def encode(self, inputs, sigma):
        return super().encode(inputs, None if sigma is None else torch.ones_like(sigma))


class MixesTexts(Network):
    """Texts of a batch see each other."""

    def encode(self, inputs, sigma):
        features = super().encode(inputs, sigma)
        return features + features.mean(0, keepdim=True)


class Restless(Network):
    """Dropout at all times."""

    def encode(self, inputs, sigma):
        return nn.functional.dropout(super().encode(inputs, sigma), 0.1, training=True)


class MissesOne(Network, Incremental):
    """Reading piece by piece forgets what was read before."""

    def reader(self, length, labels=None):
        return Amnesiac(self)


class Amnesiac(Reader):
    """No cache."""

    def __init__(self, network):
        self.network = network

    def read(self, tokens, sigma=None):
        return self.network.encode(tokens, sigma)

    def look(self, tokens, sigma=None):
        return self.network.encode(tokens, sigma)


class Unlabelled(Network, Conditional):
    """Labels are given and not read."""

    def __init__(self, num_states: int, causal: bool, time_conditioned: bool, num_labels: int = 0):
        super().__init__(num_states, causal, time_conditioned)

    def encode(self, inputs, sigma, labels=None):
        return super().encode(inputs, sigma)


class NoneIsTheFirst(Network, Conditional):
    """No label has the row of the first one."""

    def __init__(self, num_states: int, causal: bool, time_conditioned: bool, num_labels: int = 0):
        super().__init__(num_states, causal, time_conditioned)
        self.rows = torch.arange(float(num_labels))

    def encode(self, inputs, sigma, labels=None):
        hidden = super().encode(inputs, sigma)
        return (
            hidden if labels is None else hidden + self.rows[labels % len(self.rows)][:, None, None]
        )


class SeesAll(Network, Sighted):
    """What positions may see is given and not read."""

    def encode(self, inputs, sigma, labels=None, visibility=None):
        return super().encode(inputs, sigma)


class PlacesOfTheCall(Network, Sighted):
    """Tokens stand where the call has them, not where they stand in their text."""

    def encode(self, inputs, sigma, labels=None, visibility=None):
        features = self.embedded(inputs)
        seen = torch.ones(1, *2 * features.shape[1:2])
        if visibility is not None:
            seen = visibility.dense(features.shape[:2], features.device).float()
        places = torch.arange(features.shape[1])[:, None] / 10
        return (features + 2 * (seen @ features) / seen.sum(-1, keepdim=True) + places).tanh()


class CannotForget(PlacesOfTheCall, Incremental):
    """A cache keeps what it only looked at."""

    def reader(self, length, labels=None):
        return Looking(self)


class Looking(Rereader):
    """Reads where it should look."""

    def look(self, tokens, sigma=None):
        return self.read(tokens, sigma)


class UntypedOption(LogLinear):
    """What kind of option is it?

    Args:
        eps: signal left at t = 1.
    """

    def __init__(self, eps=1e-3) -> None:
        super().__init__(eps)


class RequiredOption(LogLinear):
    """An option without a default.

    Args:
        eps: signal left at t = 1.
    """

    def __init__(self, eps: float) -> None:
        super().__init__(eps)


class NamedName(LogLinear):
    """An option with a reserved name.

    Args:
        name: reserved.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__()


class Unexplained(LogLinear):
    """An option that --help has no word on."""

    def __init__(self, eps: float = 1e-3, curve: float = 1.0) -> None:
        super().__init__(eps)


class Incomplete(Sampler):
    """It cannot be called."""


class RequiresAnotherRole(Ancestral):
    """What it requires of the process is a schedule."""

    requires = {"process": LogLinear}


class ClaimsLess(Ancestral):
    """The law that it does not claim is no law."""

    unclaimed = {"draws-the-date": "it is a heuristic"}


class RefusesItself(LogLinear):
    """Its defaults do not go together.

    Args:
        eps: signal left at t = 1.
    """

    def __init__(self, eps: float = 2.0) -> None:
        super().__init__(eps)


def named(part: type) -> str:
    """WrongSlope is wrong-slope."""
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in part.__name__).lstrip("-")


def components(*parts: type, **more) -> list[Component]:
    """They register under their own names."""
    summary = "wrong on purpose"
    return [Component(named(p), f"{__name__}:{p.__name__}", summary, **more) for p in parts]


DEFAULTS = {"parameterization": "mean", "objective": "nelbo", "sampler": "ancestral"}


@hookimpl
def platform_processes():
    parts = (
        Unnormalised,
        ForgetsTheEvidence,
        Overconfident,
        WrongReverse,
        AlwaysAnother,
        AllAtOnce,
        Squared,
    )
    parts += (WrongNoise, ForgetsWhatWasThere, OneLevel)
    parts += (ScoreOfAnother, WrongRate, OddPrior, EverythingChanges, HastyDraw, GlobalNoise)
    parts += (NoiseOfAnother, Unmoved)
    parts += (NeverClean, DriftsAnotherWay, StaleNoise, FromAnywhere, WholeWay)
    homeless = components(Homeless, defaults={**DEFAULTS, "sampler": "nowhere"})
    return [*components(*parts, defaults=DEFAULTS), *homeless]


@hookimpl
def platform_schedules():
    parts = (WrongSlope, WrongInverse, StopsHalfWay, Rises, BelowZero, Narrow, OfTheBatch, HeldBack)
    parts += (UntypedOption, RequiredOption, NamedName, Unexplained, RefusesItself)
    return components(*parts)


@hookimpl
def platform_parameterizations():
    parts = (Logits, MaskToo, CarriesAnother, Shifted, Sharpened, HalfPrecision, InPlace)
    return components(*parts, NoGradient, PredictsMasks, GreedyStep)


@hookimpl
def platform_objectives():
    parts = (HalfTheBound, TooHigh, Negative, CountsPadding, OwnNoise, NoiseOfTheBatch)
    return components(*parts, Untold, NoisesPrompts, Detached)


@hookimpl
def platform_samplers():
    parts = (Biased, Twins, GlobalSeed, Remembers, IgnoresPrompts, PastesPrompts, Miscounts)
    return components(*parts, LeavesMasks, Incomplete, RequiresAnotherRole, ClaimsLess)


@hookimpl
def platform_backbones():
    parts = (Network, UnusedWeight, LooksAhead, Blinkered, DoubleLogits, AnotherForward)
    parts += (MissesOne, Unlabelled, NoneIsTheFirst, SeesAll, PlacesOfTheCall, CannotForget)
    return components(*parts, SoftAsHalf, Forgetful, Deaf, MixesTexts, Restless)
