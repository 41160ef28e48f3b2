"""Laws of diffusion processes, tested by enumerating a vocabulary of three tokens.

The laws use only the interface of `Diffusion`, so that a prior may change with time and a process
need not be a mixture with a prior; laws of mixtures alone are those that need `Mixing`.
q(x_t | x_0) is computed from the score (`toy.marginals`), and a forward step from the posterior:

    q(x_t | x_s) = q(x_s | x_t, x_0) q(x_t | x_0) / q(x_s | x_0),  for every x_0
"""

import torch
from torch import Tensor

from platform_core.composition.compose import compose
from platform_core.draws import derive_generator
from platform_core.errors import UsageError
from platform_core.process import Diffusion, Mixing, log_one_hot
from platform_core.testing.law import Figures, LawBroken, Laws, require
from platform_core.testing.learned import trained_right, without_weights
from platform_core.testing.subject import Subject
from platform_core.testing.toy import chi_square, index_of, marginals
from platform_core.types import LogProbs, Tokens

LAWS = Laws("process")

VOCABULARY = 3
LEVELS = (0.85, 0.5, 0.2)
ROUNDING = 1e-9
DRAWS = 30_000
UNLIKELY = 1e-6
"""Smaller p-values count as a fault; a correct part fails one test in a million."""


def make(subject: Subject) -> Diffusion:
    """The process over three tokens."""
    process: Diffusion = subject.make(vocab_size=VOCABULARY)
    return process


def level(alpha: float) -> Tensor:
    """A signal level as a tensor, `[1]`, float64."""
    return torch.tensor([alpha], dtype=torch.float64)


def marginal(process: Diffusion, alpha: float) -> Tensor:
    """q(x_t | x_0), `[tokens, states]`."""
    return marginals(process, level(alpha))[0].detach()


def posteriors(process: Diffusion, log_x0: LogProbs, alpha_s: float, alpha_t: float) -> Tensor:
    """q(x_s | x_t) under distributions of x_0, `[distributions, x_t, x_s]`."""
    states = torch.arange(process.num_states).expand(len(log_x0), -1)
    laws = log_x0[:, None].expand(-1, process.num_states, -1)
    return process.posterior(laws, states, level(alpha_s), level(alpha_t)).detach()


def certain(process: Diffusion) -> LogProbs:
    """Log-probabilities of the one-hot distribution of each token; `[tokens, states]`, float64."""
    return log_one_hot(torch.arange(process.vocab_size), process.num_states, torch.float64)


def some_laws(process: Diffusion, number: int = 4) -> LogProbs:
    """Random log-probabilities of the clean token, none on a mask; `[number, states]`, float64."""
    generator = derive_generator("laws of the clean token")
    shape = (number, process.vocab_size)
    law = torch.rand(shape, generator=generator, dtype=torch.float64).log().neg()
    masks = torch.zeros(number, process.num_states - process.vocab_size, dtype=torch.float64)
    return torch.cat((law / law.sum(-1, keepdim=True), masks), dim=-1).log().clamp_min(-1e6)


def agree(what: str, found: Tensor, expected: Tensor, allowed: float = ROUNDING) -> str:
    """Require two tables to agree; return their largest difference as text."""
    found, expected = found.detach(), expected.detach()
    difference = (found - expected).abs().nan_to_num(torch.inf)
    place = int(difference.argmax())
    require(
        float(difference.max()) <= allowed,
        f"{what} is {float(found.flatten()[place]):.6g} and should be "
        f"{float(expected.flatten()[place]):.6g} (allowed: {allowed:g})",
    )
    return f"largest difference {float(difference.max()):.1e}"


def drawn_from(what: str, outcomes: Tokens, probs: Tensor) -> float:
    """Require draws to fit a distribution by a chi-square test; return the p-value."""
    counts = torch.bincount(outcomes.flatten(), minlength=len(probs)).double()
    shares = counts / counts.sum()
    figures = ", ".join(
        f"{float(s):.3f} for {float(p):.3f}" for s, p in zip(shares, probs, strict=True)
    )
    try:
        p_value = chi_square(outcomes, probs)
    except AssertionError as error:
        raise LawBroken(f"{what}: {error}; {figures}") from error
    require(p_value > UNLIKELY, f"{what}: p = {p_value:.1e}; {figures}")
    return p_value


@LAWS.law(needs=Diffusion)
def clean_at_one(subject: Subject) -> Figures:
    """At alpha = 1 every token is clean: q(x | x) = 1."""
    clean = marginal(make(subject), 1.0)[:, :VOCABULARY]
    return agree("q(x | x) at alpha 1", clean, torch.eye(VOCABULARY).double())


@LAWS.law(needs=Mixing)
def signal(subject: Subject) -> Figures:
    """alpha is the probability of keeping a token: q(x | x) - q(x | y) = alpha for tokens x, y."""
    process = make(subject)
    for alpha in LEVELS:
        table = marginal(process, alpha)[:, :VOCABULARY]
        kept = table.diagonal() - table.roll(1, 0).diagonal()
        figures = agree(
            f"the chance to keep a token at alpha {alpha:g}", kept, torch.full_like(kept, alpha)
        )
    return figures


@LAWS.law(needs=Diffusion)
def rows_normalise(subject: Subject) -> Figures:
    """Every posterior sums to 1 and has no negative entry."""
    process = make(subject)
    for alpha_s, alpha_t in ((1.0, 0.5), (0.85, 0.5), (0.5, 0.2), (0.5, 1e-6)):
        rows = posteriors(process, some_laws(process), alpha_s, alpha_t)
        require(float(rows.min()) >= 0, f"an entry is {float(rows.min()):.3g}")
        figures = agree(
            f"a sum at {alpha_s:g}, {alpha_t:g}", rows.sum(-1), torch.ones_like(rows[..., 0])
        )
    return figures


def kernel(process: Diffusion, alpha_s: float, alpha_t: float) -> Tensor:
    """q(x_t | x_s), `[x_s, x_t]`, as the posteriors given each x_0 imply it.

    Raises:
        LawBroken: two x_0 imply different forward steps.
    """
    before, after = marginal(process, alpha_s), marginal(process, alpha_t)
    backward = posteriors(process, certain(process), alpha_s, alpha_t)
    # [x_0, x_t, x_s]; posteriors given an impossible x_t are ignored.
    joint = torch.where(after[..., None] > 0, backward * after[..., None], 0.0)
    possible = before > 1e-12
    steps = (joint / before[:, None].clamp_min(1e-12)).transpose(1, 2)
    known = possible[..., None].expand_as(steps)
    mean = torch.where(known, steps, 0.0).sum(0) / possible.sum(0)[:, None]
    agree(
        f"q(x_t | x_s) from alpha {alpha_s:g} to {alpha_t:g}, with one x_0,",
        torch.where(known, steps, 0.0),
        torch.where(known, mean, 0.0),
    )
    return mean


@LAWS.law(needs=Diffusion)
def bayes(subject: Subject) -> Figures:
    """The posterior obeys Bayes' rule: it implies the same forward step q(x_t | x_s) for every x_0,
    and the rows of that step sum to 1.
    """
    process = make(subject)
    for alpha_s, alpha_t in ((0.85, 0.5), (0.5, 0.2), (0.85, 0.2)):
        steps = kernel(process, alpha_s, alpha_t)
        figures = agree("the sum of q(x_t | x_s)", steps.sum(-1), torch.ones(len(steps)).double())
    return figures


@LAWS.law(needs=Diffusion)
def bayes_of_a_law(subject: Subject) -> Figures:
    """The posterior under a distribution of x_0 is the mixture of the posteriors given each x_0,
    weighted by p(x_0 | x_t).
    """
    process = make(subject)
    laws = some_laws(process)
    for alpha_s, alpha_t in ((1.0, 0.5), (0.85, 0.5), (0.5, 0.2)):
        after = marginal(process, alpha_t)
        each = torch.where(
            after[..., None] > 0, posteriors(process, certain(process), alpha_s, alpha_t), 0.0
        )
        weights = laws.exp()[:, :VOCABULARY, None] * after
        weights = weights / weights.sum(1, keepdim=True)
        mixture = torch.einsum("lxt,xts->lts", weights, each)
        found = posteriors(process, laws, alpha_s, alpha_t)
        figures = agree(f"q(x_s | x_t) at {alpha_s:g}, {alpha_t:g}", found, mixture)
    return figures


@LAWS.law(needs=Diffusion)
def marginals_compose(subject: Subject) -> Figures:
    """Forward steps compose (Chapman-Kolmogorov): the step from r to t is the step from r to s and
    then from s to t, and a step takes q(x_s | x_0) to q(x_t | x_0).
    """
    process = make(subject)
    r, s, t = LEVELS
    first, second, both = kernel(process, r, s), kernel(process, s, t), kernel(process, r, t)
    agree("q(x_t | x_0) from q(x_s | x_0)", marginal(process, s) @ second, marginal(process, t))
    return agree("the step from r to t", first @ second, both)


@LAWS.law(needs=Diffusion)
def reverse_is_posterior(subject: Subject) -> Figures:
    """The reverse step from the score of a distribution of x_0 is the posterior under it."""
    process = make(subject)
    laws = some_laws(process)
    states = torch.arange(process.num_states).expand(len(laws), -1)
    rows = laws[:, None].expand(-1, process.num_states, -1)
    for alpha_s, alpha_t in ((0.85, 0.5), (0.5, 0.2)):
        scores = process.log_score(rows, states, level(alpha_t))
        found = process.reverse(scores, states, level(alpha_s), level(alpha_t))
        expected = process.posterior(rows, states, level(alpha_s), level(alpha_t))
        figures = agree(f"the step from alpha {alpha_t:g} to {alpha_s:g}", found, expected)
    return figures


@LAWS.law(needs=Diffusion)
def rate_of_jumps(subject: Subject) -> Figures:
    """rates are those of forward jumps to x_t from each other state, per unit of time."""
    process = make(subject)
    states = torch.arange(process.num_states)
    dt, slope = 1e-6, -0.7
    for alpha in LEVELS:
        steps = kernel(process, alpha, alpha + slope * dt) / dt
        # [x_t, origin], as rows of each origin like the steps.
        rates = process.rates(states, level(alpha), level(slope))
        rate = rates.expand(len(states), len(states)).transpose(0, 1)
        elsewhere = ~torch.eye(len(states), dtype=torch.bool)
        known = elsewhere & ~steps.isnan()
        expected = torch.where(known, steps, 0.0)
        figures = agree(
            f"the rate at alpha {alpha:g}", torch.where(known, rate, 0.0), expected, 1e-4
        )
    return figures


@LAWS.law(needs=Mixing)
def noise_is_what_is_not_kept(subject: Subject) -> Figures:
    """noise is the mass of q(x_t | x_0) on another token than x_0, and added is what it gains, n_t
    - kept n_s; noise_row, log_noise_row and added_row have the same for every state.
    """
    process = make(subject)
    assert isinstance(process, Mixing)
    steps = ((1.0, 0.85), (0.85, 0.5), (0.5, 0.2))
    earlier, later = torch.tensor(steps, dtype=torch.float64).chunk(2, dim=1)
    states = torch.arange(process.num_states).expand(len(steps), -1)
    another = (states[0] + 1) % VOCABULARY

    def mass(alphas: Tensor) -> Tensor:
        return torch.stack([marginal(process, float(a))[another, states[0]] for a in alphas])

    gained = mass(later) - later / earlier * mass(earlier)
    like = torch.zeros(len(steps), 1, process.num_states, dtype=torch.float64)
    rows = (
        ("noise_row", process.noise_row(later, like), mass(later)),
        ("log_noise_row", process.log_noise_row(later, like).exp(), mass(later)),
        ("added_row", process.added_row(earlier, later, like), gained),
    )
    for what, row, expected in rows:
        agree(what, row.expand_as(like)[:, 0], expected)
    for width in (1, process.num_states):
        s, t = earlier.repeat(1, width), later.repeat(1, width)
        found, new = process.noise(states, t), process.added(states, s, t)
        require(found.dtype == new.dtype == torch.float64, f"they are {found.dtype}, {new.dtype}")
        agree("noise", found.expand_as(states), mass(later))
        figures = agree("added", new.expand_as(states), gained)
    return figures


@LAWS.law(needs=Diffusion)
def levels_of_positions(subject: Subject) -> Figures:
    """Levels of shape [batch, length] give each position what its own level gives alone."""
    process = make(subject)
    steps = torch.tensor(((0.85, 0.5), (0.5, 0.2), (0.85, 0.2)), dtype=torch.float64)
    states = torch.arange(process.num_states)[:, None].expand(-1, len(steps))
    earlier, later = (levels.expand(states.shape) for levels in steps.T)
    laws = some_laws(process, 1).expand(*states.shape, -1)
    scores = process.log_score(laws, states, later)
    found = (
        scores,
        process.posterior(laws, states, earlier, later),
        process.reverse(scores, states, earlier, later),
    )
    for place, (s, t) in enumerate(steps):
        one = (laws[:, place], states[:, place])
        score = process.log_score(*one, t[None])
        alone = (
            score,
            process.posterior(*one, s[None], t[None]),
            process.reverse(score, one[1], s[None], t[None]),
        )
        for what, all_places, expected in zip(
            ("log_score", "posterior", "reverse"), found, alone, strict=True
        ):
            figures = agree(f"{what} at position {place}", all_places[:, place], expected)
    x0 = torch.randint(VOCABULARY, (64, 2), generator=derive_generator("text"))
    mixed = torch.tensor([[1.0, 1e-9]], dtype=torch.float64).expand(64, 2)
    x_t = process.corrupt(x0, mixed, derive_generator("levels"))
    require(torch.equal(x_t[:, 0], x0[:, 0]), "corrupt changes positions whose level is 1")
    require(not torch.equal(x_t[:, 1], x0[:, 1]), "corrupt keeps positions whose level is 0")
    return figures


@LAWS.law(needs=Diffusion)
def score_of_itself(subject: Subject) -> Figures:
    """log_score is 0 at x_t, and the scores of one distribution of x_0 imply the same q_t at every
    x_t.
    """
    process = make(subject)
    laws = some_laws(process)
    states = torch.arange(process.num_states).expand(len(laws), -1)
    scores = process.log_score(laws[:, None].expand(-1, process.num_states, -1), states, level(0.5))
    here = scores.gather(-1, states[..., None])
    agree("log_score at x_t", here, torch.zeros_like(here))
    expected = scores[:, :1].softmax(-1).expand_as(scores)
    return agree("q_t, from the score,", scores.softmax(-1), expected)


@LAWS.law(needs=Diffusion)
def log_noised(subject: Subject) -> Figures:
    """log_noised is log q(x_t | x_0) wherever noise can reach x_t from x_0."""
    process = make(subject)
    tokens, states = torch.arange(VOCABULARY), torch.arange(process.num_states)
    x0 = tokens[:, None].expand(-1, process.num_states)
    for alpha in LEVELS:
        table = marginal(process, alpha)
        found = process.log_noised(states.expand_as(x0), x0, level(alpha))
        require(found.dtype == torch.float64, f"it is {found.dtype}")
        possible = table > 1e-12
        expected = torch.where(possible, table, 1.0).log()
        figures = agree(
            f"log_noised at alpha {alpha:g}", torch.where(possible, found, 0.0), expected
        )
    return figures


@LAWS.law(against=without_weights, silent=True)
def trains_its_weights(subject: Subject) -> Figures:
    """The mean gradient that training gives the weights is the derivative of the mean loss, the law
    of the noise included; every noisy text of two tokens is enumerated.
    """
    return trained_right(subject)


@LAWS.law(needs=Diffusion)
def changeable(subject: Subject) -> Figures:
    """changeable is true for exactly the states that a reverse step may change."""
    process = make(subject)
    states = torch.arange(process.num_states)
    rows = posteriors(process, some_laws(process), 0.85, 0.5)
    stays = rows.diagonal(dim1=1, dim2=2).amin(0)
    moves, said = stays < 1 - 1e-12, process.changeable(states)
    figures = f"it is true for {states[said].tolist()}, should be for {states[moves].tolist()}"
    require(bool((moves == said).all()), figures)
    missing = "it is not true of every state, so all_changeable must be False"
    require(bool(said.all()) or not process.all_changeable, missing)
    return figures


@LAWS.law(needs=Diffusion)
def corrupt_draws(subject: Subject) -> Figures:
    """corrupt draws each token independently from q(x_t | x_0), for signal levels of shape
    [batch, 1] and [batch, length].
    """
    process = make(subject)
    lowest = 1.0
    pair = torch.tensor([0, 2])
    for alpha in LEVELS:
        generator = derive_generator("corrupt", str(alpha))
        table = marginal(process, alpha)
        joint = (table[0][:, None] * table[2]).flatten()
        for shape in ((DRAWS, 1), (DRAWS, 2)):
            x0 = pair.expand(DRAWS, 2).clone()
            x_t = process.corrupt(x0, torch.full(shape, alpha).double(), generator)
            require(x_t.shape == x0.shape, f"{tuple(x0.shape)} became {tuple(x_t.shape)}")
            require(bool((x0 == pair).all()), "corrupt changed the tokens that it was given")
            outcomes = index_of(x_t, process.num_states)
            lowest = min(lowest, drawn_from(f"pairs at alpha {alpha:g}", outcomes, joint))
    clean = process.corrupt(x0, torch.ones(DRAWS, 1).double(), generator)
    require(bool((clean == x0).all()), "at alpha 1 tokens change")
    return f"lowest p of {2 * len(LEVELS)}: {lowest:.2g}"


@LAWS.law(needs=Diffusion)
def prior_draws(subject: Subject) -> Figures:
    """sample_prior draws from q(x_t | x_0) at alpha = 0."""
    process = make(subject)
    tokens = process.sample_prior((DRAWS, 2), derive_generator("prior"))
    require(tokens.shape == (DRAWS, 2), f"it makes {tuple(tokens.shape)} of {(DRAWS, 2)}")
    require(tokens.dtype == torch.long, f"it draws {tokens.dtype}")
    noise = marginal(process, 1e-12)[0]
    noise = torch.where(noise > 1e-9, noise, 0.0)
    pairs = index_of(tokens, process.num_states)
    return f"p = {drawn_from('pairs of tokens', pairs, torch.outer(noise, noise).flatten()):.2g}"


@LAWS.law(needs=Diffusion)
def reverse_draws(subject: Subject) -> Figures:
    """thin and draw_open, one after the other, draw from the posterior."""
    process = make(subject)
    law = some_laws(process, 1)
    lowest = 1.0
    for alpha_s, alpha_t in ((1.0, 0.5), (0.85, 0.5), (0.5, 0.2)):
        rows = posteriors(process, law, alpha_s, alpha_t)[0]
        for state in range(process.num_states):
            generator = derive_generator("reverse", str(alpha_s), state)
            x_t = torch.full((DRAWS,), state)
            levels = level(alpha_s).expand(DRAWS), level(alpha_t).expand(DRAWS)
            opened, opened_s = process.thin(x_t, *levels, generator=generator)
            x_s = x_t.clone()
            x_s[opened] = process.draw_open(
                law.expand(int(opened.sum()), -1),
                x_t[opened],
                opened_s.expand(DRAWS)[opened],
                levels[1][opened],
                generator=generator,
            )
            what = f"from state {state} at alpha {alpha_t:g} to {alpha_s:g}"
            lowest = min(lowest, drawn_from(what, x_s, rows[state]))
    return f"lowest p: {lowest:.2g}"


@LAWS.law(needs=Diffusion)
def draws_by_seed(subject: Subject) -> Figures:
    """The draws of corrupt and sample_prior depend only on the generator that is passed."""
    process = make(subject)
    x0 = torch.randint(VOCABULARY, (64, 8), generator=derive_generator("text"))
    alpha = torch.full((64, 1), 0.5, dtype=torch.float64)

    def draw(seed: int, elsewhere: int) -> tuple[Tokens, Tokens]:
        torch.manual_seed(elsewhere)
        noisy = process.corrupt(x0, alpha, derive_generator(seed))
        return noisy, process.sample_prior((64, 8), derive_generator(seed))

    for name, one, same, other in zip(
        ("corrupt", "sample_prior"), draw(1, 1), draw(1, 2), draw(2, 1), strict=True
    ):
        require(torch.equal(one, same), f"{name} draws other tokens from the same generator")
        # Where nearly all noise is one state, two draws may well be the same.
        only = marginal(process, 1e-30).max() > 0.99 and name == "sample_prior"
        require(only or not torch.equal(one, other), f"{name} does not read its generator")
    return None


@LAWS.law(heavy=True)
def defaults_go_together(subject: Subject) -> Figures:
    """The default parts that a process names are installed and go together."""
    try:
        made, _ = compose(
            ["--process", subject.name, *subject.words], subject.plugins, prog="check", environ={}
        )
    except UsageError as error:
        raise LawBroken(str(error)) from error
    return ", ".join(f"{role} {name}" for role, name in made.names.items() if role != "process")
