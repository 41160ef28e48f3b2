"""Laws of guided samplers by enumeration: tilted steps, order statistics, particles."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from platform_core.backbone import Conditional
from platform_core.categorical import KeepAll
from platform_core.composition.compose import compose
from platform_core.draws import Draws
from platform_core.model import Model
from platform_core.objective import Nelbo
from platform_core.process import Absorbing, Diffusion, Uniform
from platform_core.registry.loading import find_plugins
from platform_core.reward import Graded, Reward, Values
from platform_core.sampler import Ancestral, GridSampler, Prompt, Sampler, Walk
from platform_core.testing.toy import (
    AsItIs,
    ExactDenoiser,
    ToyLaw,
    all_sequences,
    chain_law,
    chi_square,
    double,
    exact_model,
    index_of,
    marginals,
    model,
    random_law,
    seeded,
)
from platform_core.types import Batch, Noise, Tokens
from platform_guidance import runs
from platform_guidance.particles import Particles
from platform_guidance.rewards import Entropy, Matches
from platform_guidance.runs import Label
from platform_guidance.sampler import BestOf, ClassifierGuided, Guided

TOKENS, LENGTH = 3, 2
LAWS = (random_law(TOKENS, LENGTH, seed=1), random_law(TOKENS, LENGTH, seed=2))
ANY = ToyLaw((LAWS[0].probs + LAWS[1].probs) / 2)
ALPHAS = double(0.3, 0.7)
both = pytest.mark.parametrize("kind", [Absorbing, Uniform])


@pytest.fixture
def levels_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that formulas agree further than networks, which are told levels in float32."""
    monkeypatch.setattr(runs, "Denoiser", AsItIs)


class Labelled(Conditional):
    """The best network for a law of each label, and for their mixture where there is none."""

    def __init__(self, process: Diffusion) -> None:
        super().__init__()
        self.networks = nn.ModuleList(ExactDenoiser(law, process) for law in (*LAWS, ANY))
        self.weight = nn.Parameter(torch.zeros(()))
        self.identity = nn.Identity()

    @property
    def decoder(self):
        return self.identity

    def encode(self, inputs, sigma, labels=None):
        every = torch.stack([network.encode(inputs, sigma) for network in self.networks])
        return every[labels.expand(len(inputs)), torch.arange(len(inputs))]


def label_reward(process: Diffusion, label: int = 1, draws: int = 8) -> Label:
    """The reward of a run whose network knows the law of each label."""
    built = model(process, Labelled(process))
    train, evaluate = SimpleNamespace(label_dropout=0.1), SimpleNamespace(batch_size=4000)
    composition = SimpleNamespace(train=train, evaluate=evaluate, names={})
    found = Label.__new__(Label)
    directory = SimpleNamespace(path="toy", label_names=lambda: ("left", "right"))
    found.__dict__.update(label=label, draws=draws, directory=directory)
    found.__dict__["trained"] = SimpleNamespace(
        model=built, objective=Nelbo(built), composition=composition
    )
    return found


def exact(kind: Any) -> Model:
    """The model that predicts the mixture exactly; it has a weight, so that it has a device."""
    built = exact_model(ANY, kind)
    built.backbone.register_parameter("weight", nn.Parameter(torch.zeros(())))
    return built


def prob_of_label(process: Diffusion, x_t: Tokens, place: int, alphas: tuple[Tensor, Tensor]):
    """p(second label | the text with each state at one place), `[texts, states]`, written out."""
    alpha_s, alpha_t = alphas
    at_s, at_t = (marginals(process, alpha.reshape(1))[0] for alpha in (alpha_s, alpha_t))
    clean = all_sequences(TOKENS, LENGTH)
    joint = []
    for law in LAWS:
        chance = law.probs.flatten().repeat(len(x_t), 1)  # [texts, clean texts]
        for other in range(LENGTH):
            if other != place:
                chance = chance * at_t[clean[:, other]][:, x_t[:, other]].T
        joint.append(chance @ at_s[clean[:, place]])
    return joint[1] / (joint[0] + joint[1])


def walk(built: Model, reward: Graded, gamma: float, x_t: Tokens) -> Guided:
    fixed = torch.zeros_like(x_t, dtype=torch.bool)
    return Guided(AsItIs(built), KeepAll(), seeded(), fixed, x_t, reward=reward, gamma=gamma)


@both
@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("alpha_s", [0.7, 1.0])
@pytest.mark.usefixtures("levels_in_float64")
def test_a_guided_step_is_the_tilted_law(kind: Any, gamma: float, alpha_s: float) -> None:
    process = kind(TOKENS)
    other = random_law(TOKENS, LENGTH, seed=5)
    built = exact_model(other, kind)
    x_t = all_sequences(process.num_states, LENGTH)
    levels = double(alpha_s).view(1, 1), double(0.3).view(1, 1)
    selected = process.changeable(x_t)
    found = walk(built, label_reward(process), gamma, x_t).law(x_t, selected, *levels)
    assert torch.allclose(found.sum(-1), torch.ones(len(found), dtype=torch.float64))
    plain = process.posterior(other.log_x0(x_t, levels[1], process), x_t, *levels)
    rows = []
    for text in range(len(x_t)):
        for place in range(LENGTH):
            if selected[text, place]:
                label = prob_of_label(process, x_t[text : text + 1], place, levels)[0]
                law = plain[text, place] * label.nan_to_num(1.0) ** gamma
                rows.append(law / law.sum())
    torch.testing.assert_close(found, torch.stack(rows), rtol=0, atol=1e-12)


@both
@pytest.mark.usefixtures("levels_in_float64")
def test_a_run_that_guides_itself_draws_as_with_the_label(kind: Any) -> None:
    process = kind(TOKENS)
    x_t = all_sequences(process.num_states, LENGTH)
    levels = double(0.7).view(1, 1), double(0.3).view(1, 1)
    selected = process.changeable(x_t)
    guided = walk(exact_model(ANY, kind), label_reward(process), 1.0, x_t)
    found = guided.law(x_t, selected, *levels)
    with_label = process.posterior(LAWS[1].log_x0(x_t, levels[1], process), x_t, *levels)
    torch.testing.assert_close(found, with_label[selected], rtol=0, atol=1e-12)


@both
def test_without_weight_guidance_is_ancestral_token_for_token(kind: Any) -> None:
    built = exact(kind)
    prompt = Prompt(torch.tensor([[2, 0]]).expand(50, 2), torch.tensor([[True, False]] * 50))
    for given in (None, prompt):
        guided = ClassifierGuided(label_reward(kind(TOKENS)), gamma=0, steps=5)
        found = guided(built, (50, LENGTH), seeded(3), given)
        plain = Ancestral(5)(built, (50, LENGTH), seeded(3), given)
        assert torch.equal(found.tokens, plain.tokens)
        assert found.nfe == plain.nfe


def test_a_guided_text_counts_the_classifier_and_prefers_the_label() -> None:
    built = exact(Absorbing)
    guided = ClassifierGuided(label_reward(Absorbing(TOKENS)), gamma=4, steps=4)
    found = guided(built, (4000, LENGTH), seeded(3))
    assert found.nfe <= 3 * 5
    plain = Ancestral(4)(built, (4000, LENGTH), seeded(3)).tokens
    posterior = LAWS[1].probs / (LAWS[0].probs + LAWS[1].probs)
    of = [float(posterior[tuple(x.unbind(-1))].mean()) for x in (found.tokens, plain)]
    assert of[0] > of[1] + 0.1


class Table(Reward):
    """A reward for each text, read from a table; each call counts as a network evaluation."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __call__(self, texts: Tokens) -> Values:
        self.calls += 1
        return self.values[index_of(texts, TOKENS)]


REWARDS = double(0.0, 1.5, -0.5, 0.3, 0.3, -1.0, 2.0, 0.1, 0.3)
TIED = double(0.0, 1.0, 0.0, 1.0, 2.0, 2.0, 0.0, 1.0, 0.0)


@pytest.mark.parametrize("values", [REWARDS, TIED], ids=["distinct", "tied"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_best_of_n_has_the_law_of_order_statistics(values: Tensor, n: int) -> None:
    inner, built = Ancestral(6), exact_model(ANY, Absorbing)
    reward = Table(values)
    drawn = BestOf(inner, reward, n)(built, (6000, LENGTH), seeded(n))
    again = seeded(n)
    assert drawn.nfe == sum(inner(built, (6000, LENGTH), again).nfe for _ in range(n)) + n
    plain = sampled(inner, Absorbing(TOKENS))
    below = torch.stack([plain[values < value].sum() for value in values])
    upto = torch.stack([plain[values <= value].sum() for value in values])
    law = plain / (upto - below) * (upto**n - below**n)
    assert float(law.sum()) == pytest.approx(1, abs=1e-12)
    assert chi_square(index_of(drawn.tokens, TOKENS), law) > 1e-3


def sampled(inner: Ancestral, process: Diffusion) -> Tensor:
    """The law of all clean texts under the sampler with exact predictions, by enumeration."""
    levels = inner.alphas(exact_model(ANY, type(process)).schedule, ALPHAS.device)
    alphas = torch.cat((levels.flatten(), double(1.0)))
    reached = chain_law(ANY, process, alphas)
    states = all_sequences(process.num_states, LENGTH)
    clean = (states < TOKENS).all(-1)
    return reached[clean] / reached[clean].sum()


def test_one_candidate_or_one_particle_draws_as_the_other_sampler_does() -> None:
    built, inner = exact_model(ANY, Uniform), Ancestral(6)
    plain = inner(built, (100, LENGTH), seeded(1)).tokens
    of_one: list[Sampler] = [
        BestOf(inner, Table(REWARDS), 1),
        Particles(inner, Table(REWARDS), 1),
    ]
    for sampler in of_one:
        assert torch.equal(sampler(built, (100, LENGTH), seeded(1)).tokens, plain)


@both
@pytest.mark.parametrize(("strength", "threshold"), [(0.0, 0.9), (0.8, 0.9), (0.8, 0.0)])
def test_particles_tend_to_the_tilted_law(kind: Any, strength: float, threshold: float) -> None:
    """Few steps, so that the plain law is not that of the data."""
    inner = Ancestral(3)
    sampler = Particles(inner, Table(REWARDS), 64, strength, every=1, threshold=threshold)
    drawn = sampler(exact_model(ANY, kind), (1500, LENGTH), seeded(4)).tokens
    law = sampled(inner, kind(TOKENS)) * (strength * REWARDS).exp()
    assert chi_square(index_of(drawn, TOKENS), law) > 1e-3


def test_the_more_particles_the_nearer_the_tilted_law() -> None:
    inner, built = Ancestral(3), exact_model(ANY, Absorbing)
    law = sampled(inner, Absorbing(TOKENS)) * (2 * REWARDS).exp()
    law = law / law.sum()
    distances = []
    for number in (1, 2, 8, 64):
        sampler = Particles(inner, Table(REWARDS), number, 2.0, every=1)
        tokens = sampler(built, (4000, LENGTH), seeded(4)).tokens
        shares = torch.bincount(index_of(tokens, TOKENS), minlength=len(law)) / 4000
        distances.append(float((shares - law).abs().sum() / 2))
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 5 * distances[-1]


class Remembered(NamedTuple):
    """What a sampler's steps remember of each text."""

    tokens: Tokens


class Remembering(GridSampler):
    """Checks that what it remembers of texts stays with them."""

    moved: ClassVar[list[bool]] = []

    def step(self, walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tokens:
        if isinstance(walk.memory, Remembered):
            assert torch.equal(walk.memory.tokens, x_t)
        x_s = walk.step(x_t, alpha_s, alpha_t)
        walk.memory = Remembered(x_s)
        return x_s


def test_what_steps_remember_follows_its_text() -> None:
    sampler = Particles(Remembering(6), Table(REWARDS), 8, 3.0, every=1, threshold=1.0)
    prompt = Prompt(torch.tensor([[0, 1], [2, 2]]), torch.tensor([[False, True], [True, False]]))
    drawn = sampler(exact_model(ANY, Uniform), (2, LENGTH), seeded(), prompt)
    assert torch.equal(drawn.tokens[prompt.fixed], prompt.tokens[prompt.fixed])
    assert drawn.nfe == 8 * (7 + 6 + 7)


@both
def test_likelihoods_are_bounds_with_the_same_noise_for_all_texts(kind: Any) -> None:
    process = kind(TOKENS)
    reward = label_reward(process, draws=20)
    texts = torch.cat((all_sequences(TOKENS, LENGTH), all_sequences(TOKENS, LENGTH)))
    found = reward.log_likelihood(texts, 1)
    assert torch.equal(found[:9], found[9:])
    assert reward.calls == 20
    repeated = texts[4:5].expand(20, -1)
    draws = Draws.derive(0, "reward", step=0, first=0, total=20)
    batch = Batch(repeated, torch.ones_like(repeated, dtype=torch.bool))
    alone = Nelbo(exact_model(LAWS[1], kind)).bound(batch, draws).per_token.sum(-1).mean()
    torch.testing.assert_close(found[4], -alone.double())
    by_label = torch.stack([reward.log_likelihood(texts[:9], label) for label in (0, 1)])
    torch.testing.assert_close(reward(texts[:9]), by_label.log_softmax(0)[1])


@pytest.mark.parametrize("masks", [True, False])
def test_gains_in_entropy_are_those_of_every_neighbour(masks: bool) -> None:
    states, reward = 3 + masks, Entropy(3, 3 + masks)
    x_t = all_sequences(states, 4)
    found = reward.gains(x_t, torch.ones_like(x_t, dtype=torch.bool), ALPHAS, ALPHAS)
    found = found.view(*x_t.shape, -1)
    for place in range(4):
        for state in range(states):
            neighbour = x_t.clone()
            neighbour[:, place] = state
            torch.testing.assert_close(found[:, place, state], reward(neighbour))
    one = double(1, 3) / 4
    torch.testing.assert_close(reward(torch.tensor([[0, 1, 1, 1]]))[0], -(one * one.log()).sum())


def test_matches_are_counted_in_the_text() -> None:
    tokenizer: Any = SimpleNamespace(decode=lambda ids: "".join("ab "[i] for i in ids))
    reward = Matches(r"a+b", tokenizer)
    texts = torch.tensor([[0, 0, 1, 2, 0, 1], [1, 1, 0, 0, 0, 0]])
    assert reward(texts).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: BestOf(Ancestral(), Table(TIED), 0), "n is 0"),
        (lambda: Particles(Ancestral(), Table(TIED), 0), "particles is 0"),
        (lambda: Particles(Ancestral(), Table(TIED), every=0), "every 0"),
        (lambda: Particles(Ancestral(), Table(TIED), threshold=2), "threshold 2"),
        (lambda: Particles(BestOf(Ancestral(), Table(TIED)), Table(TIED)), "inner is BestOf"),
        (lambda: ClassifierGuided(Table(TIED)), "reward is Table, which values whole texts only"),
        (lambda: ClassifierGuided(Entropy(3, 3), gamma=float("nan")), "gamma is nan"),
        (lambda: Matches("("), "is no regular expression"),
    ],
)
def test_options_out_of_range_are_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        make()


def test_rewards_are_chosen_at_every_depth(tmp_path: Path) -> None:
    words = """--process absorbing --backbone small --sampler best-of --sampler.n 2
        --sampler.reward matches --sampler.reward.pattern a+ --sampler.inner particles
        --sampler.inner.reward entropy --sampler.inner.inner d-cbg --sampler.inner.inner.steps 7"""
    plugins = find_plugins({"PLATFORM_PLUGINS": "platform_core.testing.stubs"})
    found, _ = compose(words.split(), plugins, prog="test", environ={})
    outer = found.build(3).sampler
    assert outer.reward.pattern.pattern == "a+"
    assert isinstance(outer.inner.reward, Entropy)
    assert isinstance(outer.inner.inner.reward, Entropy)
    assert outer.inner.inner.steps == 7
    assert found.options("sampler")["inner"]["inner"]["reward"] == {"name": "entropy"}
    (tmp_path / "config.yaml").write_text(found.config)
    again, _ = compose([f"--config={tmp_path / 'config.yaml'}"], plugins, prog="x", environ={})
    assert again.config == found.config
