"""Labels and guidance: which law is drawn from, what it costs, and that training reads labels."""

import copy
import itertools
import math

import pytest
import torch
from accelerate import Accelerator
from scipy import stats
from torch import nn

from platform_core.backbone import (
    Conditional,
    Incremental,
    Rereader,
    Sighted,
    reader,
)
from platform_core.composition.compose import compose
from platform_core.composition.options import SampleOptions, TrainOptions
from platform_core.data.sequences import LabelledSplit
from platform_core.draws import Draws, derive_generator
from platform_core.errors import IncompatibleError, UsageError
from platform_core.evaluation.bound import evaluate
from platform_core.guidance import Guided, Told, guided, without_some
from platform_core.model import Denoiser, Model
from platform_core.objective import Nelbo
from platform_core.parameterization import Mean
from platform_core.process import Absorbing, Uniform
from platform_core.registry.loading import load_plugins
from platform_core.sampler import Ancestral
from platform_core.schedule import LogLinear
from platform_core.testing.toy import (
    CausalNetwork,
    ExactDenoiser,
    ToyLaw,
    all_sequences,
    chain_law,
    index_of,
    model,
    random_law,
)
from platform_core.training.trainer import Trainer
from platform_core.types import Batch
from platform_core.visibility import Visibility
from platform_dit.backbone import Dit
from platform_sedd.parameterization import Score

NAMES = ("left", "right")
LAWS = (random_law(3, 2, seed=1), random_law(3, 2, seed=2))
ANY = ToyLaw((LAWS[0].probs + LAWS[1].probs) / 2)
PROCESSES = [Absorbing, Uniform]
SMALL = {"hidden_size": 16, "num_blocks": 1, "num_heads": 2, "cond_size": 8}


class ExactConditional(Conditional):
    """The best network for a law of each label, and for their mixture where there is none."""

    def __init__(self, process):
        super().__init__()
        self.networks = nn.ModuleList(ExactDenoiser(law, process) for law in (*LAWS, ANY))
        self.identity = nn.Identity()

    @property
    def decoder(self):
        return self.identity

    def encode(self, inputs, sigma, labels=None):
        every = torch.stack([network.encode(inputs, sigma) for network in self.networks])
        return every[labels.expand(len(inputs)), torch.arange(len(inputs))]


class GuidedLaw:
    """A law that is only known by its guided predictions, written out."""

    num_tokens, length = ANY.num_tokens, ANY.length

    def __init__(self, weight):
        self.weight = weight

    def log_x0(self, x_t, alpha, process):
        mixed = self.weight * LAWS[1].log_x0(x_t, alpha, process).double()
        mixed += (1 - self.weight) * ANY.log_x0(x_t, alpha, process)
        mixed[..., self.num_tokens :] = -1e6
        return mixed.log_softmax(-1)


def exact(process):
    return model(process, ExactConditional(process))


def asked(weight=1.0, label="right"):
    return SampleOptions(label=label, guidance=weight)


def dit(process, num_labels=2):
    torch.manual_seed(0)
    network = Dit(
        process.num_states, False, process.time_conditioned, num_labels=num_labels, **SMALL
    )
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


def d_cfg(process, x_t, alpha_s, alpha_t, weight):
    """The published law: both posteriors, weighed and normalised."""
    of_label, of_any = (
        process.posterior(law.log_x0(x_t, alpha_t, process), x_t, alpha_s, alpha_t)
        for law in (LAWS[1], ANY)
    )
    mixed = of_label**weight * of_any ** (1 - weight)
    return mixed / mixed.sum(-1, keepdim=True)


def guided_posterior(process, x_t, alpha_s, alpha_t, weight):
    denoiser = Denoiser(guided(exact(process), NAMES, asked(weight)))
    logits = denoiser.model.backbone.decoder(denoiser.encode(x_t, alpha_t.expand(len(x_t), 1)))
    log_x0 = denoiser.parameterization.log_x0(logits, x_t, torch.tensor(0.5), process)
    return process.posterior(log_x0, x_t, alpha_s, alpha_t)


def level(value):
    return torch.tensor([[value]], dtype=torch.float64)


@pytest.mark.parametrize("weight", [0.5, 1.0, 2.0, 3.5])
def test_a_token_that_is_unmasked_has_the_law_of_d_cfg(weight):
    process = Absorbing(3)
    x_t = all_sequences(4, 2)
    masked = x_t == process.mask_id
    ours = guided_posterior(process, x_t, level(0.7), level(0.4), weight)[masked]
    published = d_cfg(process, x_t, level(0.7), level(0.4), weight)[masked]
    torch.testing.assert_close(
        ours[:, :3] / ours[:, :3].sum(-1, keepdim=True),
        published[:, :3] / published[:, :3].sum(-1, keepdim=True),
    )


def test_under_masks_guidance_does_not_change_how_many_tokens_are_unmasked_but_d_cfg_does():
    process = Absorbing(3)
    x_t = torch.full((1, 2), process.mask_id)
    ours = guided_posterior(process, x_t, level(0.7), level(0.4), 2.0)
    torch.testing.assert_close(ours[..., 3], torch.full((1, 2), 0.5).double())
    published = d_cfg(process, x_t, level(0.7), level(0.4), 2.0)
    normaliser = (LAWS[1].log_x0(x_t, level(0.4), process)[..., :3].exp().square()).div(
        ANY.log_x0(x_t, level(0.4), process)[..., :3].exp()
    )
    torch.testing.assert_close(published[..., 3], 1 / (1 + normaliser.sum(-1)))
    assert (published[..., 3] < 0.499).all()


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_for_uniform_noise_the_last_step_is_d_cfg_and_an_earlier_one_is_not(weight):
    process = Uniform(3)
    x_t = all_sequences(3, 2)
    last = guided_posterior(process, x_t, level(1.0), level(0.4), weight)
    torch.testing.assert_close(last, d_cfg(process, x_t, level(1.0), level(0.4), weight))
    earlier = guided_posterior(process, x_t, level(0.7), level(0.4), weight)
    difference = (earlier - d_cfg(process, x_t, level(0.7), level(0.4), weight)).abs().sum(-1) / 2
    assert difference.max() > 0.003


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_for_uniform_noise_steps_are_of_the_guided_clean_law(weight):
    """q(z_t | z_s) (alpha_s x_w + (1 - alpha_s) / V), with x_w normalised; D-CFG weighs q_s."""
    process = Uniform(3)
    x_t = all_sequences(3, 2)
    alpha_s, alpha_t = 0.7, 0.4
    laws = [law.log_x0(x_t, level(alpha_t), process).exp() for law in (LAWS[1], ANY)]
    kept = alpha_t / alpha_s
    reach = kept * torch.eye(3)[x_t] + (1 - kept) / 3

    def step(earlier):
        mass = reach * earlier
        return mass / mass.sum(-1, keepdim=True)

    x_w = laws[0] ** weight * laws[1] ** (1 - weight)
    x_w = x_w / x_w.sum(-1, keepdim=True)
    ours = guided_posterior(process, x_t, level(alpha_s), level(alpha_t), weight)
    torch.testing.assert_close(ours, step(alpha_s * x_w + (1 - alpha_s) / 3))
    q_label, q_any = (alpha_s * law + (1 - alpha_s) / 3 for law in laws)
    published = d_cfg(process, x_t, level(alpha_s), level(alpha_t), weight)
    torch.testing.assert_close(published, step(q_label**weight * q_any ** (1 - weight)))


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("process_class", PROCESSES)
def test_a_sampler_draws_from_the_enumerated_chain_of_guided_steps(process_class, weight):
    process = process_class(3)
    writer = guided(exact(process), NAMES, asked(weight))
    sample = Ancestral(4, "none")(writer, (4000, 2), derive_generator(7))
    alphas = LogLinear(eps=0).alpha(torch.linspace(1, 1e-5, 5, dtype=torch.float64))
    expected = chain_law(GuidedLaw(weight), process, alphas.view(-1, 1, 1))
    drawn = index_of(sample.tokens, process.num_states)

    counts = torch.bincount(drawn, minlength=len(expected)).double()
    rare = expected * len(drawn) < 5
    pooled = [torch.cat((c[~rare], c[rare].sum()[None])) for c in (counts, expected * len(drawn))]
    if pooled[1][-1] < 1:
        assert pooled[0][-1] <= 3
        pooled = [part[:-1] for part in pooled]
    pooled[1] *= pooled[0].sum() / pooled[1].sum()
    assert stats.chisquare(pooled[0].numpy(), pooled[1].numpy()).pvalue > 0.01


@pytest.mark.parametrize("process_class", PROCESSES)
@pytest.mark.parametrize(("weight", "law"), [(1.0, LAWS[1]), (0.0, ANY)])
def test_weights_1_and_0_are_the_model_with_the_label_and_without_bit_for_bit(
    process_class, weight, law
):
    process = process_class(3)
    alone = Ancestral(8)(model(process, ExactDenoiser(law, process)), (64, 2), derive_generator(1))
    writer = guided(exact(process), NAMES, asked(weight))
    drawn = Ancestral(8)(writer, (64, 2), derive_generator(1))
    assert torch.equal(drawn.tokens, alone.tokens)
    assert drawn.nfe == alone.nfe


def test_without_a_label_text_of_no_label_is_drawn():
    process = Uniform(3)
    alone = Ancestral(8)(model(process, ExactDenoiser(ANY, process)), (64, 2), derive_generator(1))
    drawn = Ancestral(8)(
        guided(exact(process), NAMES, SampleOptions()), (64, 2), derive_generator(1)
    )
    assert torch.equal(drawn.tokens, alone.tokens)


def test_a_model_without_labels_is_left_alone():
    process = Uniform(3)
    plain = model(process, ExactDenoiser(ANY, process))
    assert guided(plain, (), SampleOptions()) is plain


@pytest.mark.parametrize("weight", [0.5, 3.0])
@pytest.mark.parametrize("process_class", PROCESSES)
def test_guided_scores_are_weighed_where_all_is_noise_that_says_which(process_class, weight):
    """w[y] of SEDD's score are weighed without being normalised: rates of jumps are guided too."""
    process = process_class(3)
    backbone = dit(process)
    built = Model(process, LogLinear(), Score(), backbone)
    x_t, alpha = torch.tensor([[0, 1, process.num_states - 1]]), level(0.3)
    told = {
        w: Denoiser(guided(built, NAMES, asked(w))).log_score(x_t, alpha) for w in (0, 1, weight)
    }
    weights = {
        w: (logits - math.log(process.vocab_size))[..., : process.vocab_size]
        for w, logits in (
            (w, _logits(built, x_t, alpha, label)) for w, label in ((1, "right"), (0, None))
        )
    }
    log_w = weight * weights[1] + (1 - weight) * weights[0]
    log_w = nn.functional.pad(log_w, (0, process.num_states - process.vocab_size), value=-1e6)
    torch.testing.assert_close(told[weight], process.log_score(log_w, x_t, alpha))
    if process_class is Absorbing:
        masked = x_t == process.mask_id
        direct = (weight * told[1] + (1 - weight) * told[0])[masked][..., :3]
        torch.testing.assert_close(told[weight][masked][..., :3], direct)


def _logits(built, x_t, alpha, label):
    denoiser = Denoiser(guided(built, NAMES, SampleOptions(label=label)))
    return denoiser.model.backbone.decoder(denoiser.encode(x_t, alpha)).detach()


def test_both_calls_are_counted():
    process = Uniform(3)
    for weight, calls in ((0.0, 4), (1.0, 4), (1.5, 8)):
        writer = guided(exact(process), NAMES, asked(weight))
        assert Ancestral(3)(writer, (2, 2), derive_generator(0)).nfe == calls


class Spoken(CausalNetwork, Conditional, Sighted, Incremental):
    """A causal network that adds the label to its features, and its cache: the text so far."""

    def encode(self, inputs, sigma, labels=None, visibility=None):
        features = super().encode(inputs, sigma)
        places = 0 if visibility is None else visibility.positions[..., None]
        return features + labels[:, None, None] + places

    def reader(self, length, labels=None):
        kept = Told(self, labels)
        made.append((length, labels.tolist()))
        return Rereader(kept)


made: list[object] = []


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0])
def test_a_network_told_its_label_keeps_its_cache_and_is_told_what_it_sees(weight):
    causal = Model(Absorbing(3), LogLinear(), Mean(), Spoken(4).eval())
    writer = guided(causal, NAMES, asked(weight)).backbone
    text, places = torch.tensor([[0, 2, 1], [1, 1, 0]]), torch.tensor([[0, 0, 1], [0, 1, 1]])
    assert isinstance(writer, Sighted)
    assert isinstance(writer, Incremental)
    made.clear()
    with torch.no_grad():
        reading = reader(writer, 3)
        read = torch.cat([reading.read(text[:, :2]), reading.read(text[:, 2:])], dim=1)
        torch.testing.assert_close(read, writer.encode(text, None))
        rule = Visibility(lambda text, query, key: key >= 0, places)
        moved = writer.encode(text, None, visibility=rule) - writer.encode(text, None)
    assert made == {0.0: [(3, [2])], 1.0: [(3, [1])], 2.0: [(3, [1]), (3, [2])]}[weight]
    torch.testing.assert_close(moved, places[..., None].float().expand_as(moved))


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        f"--process={process} --sampler={sampler}"
        for process, samplers in {
            "mdlm": "ancestral cached-ancestral first-hitting semi-autoregressive remdm",
            "duo": "ancestral",
            "sedd": "analytic euler ancestral",
            "d3pm": "ancestral",
        }.items()
        for sampler in samplers.split()
    ],
)
def test_every_diffusion_sampler_is_guided_and_counts_what_was_read(parts, monkeypatch):
    words = [*parts.split(), "--backbone=dit", "--data.label=century", *sizes()]
    composition, _ = compose(words, load_plugins(), prog="test", environ={})
    built = composition.build(5, num_labels=2)
    writer = guided(built.model, NAMES, asked(2.0))
    read, encode = [], built.model.backbone.encode

    def listen(inputs, sigma, labels=None, visibility=None):
        read.append((len(inputs), labels.tolist()))
        return encode(inputs, sigma, labels)

    monkeypatch.setattr(built.model.backbone, "encode", listen)
    sample = built.sampler(writer, (3, 8), derive_generator(0))
    assert sample.tokens.max() < 5
    assert sample.nfe == math.ceil(sum(number for number, _ in read) / 3)
    assert [labels for _, labels in read] == [[1], [2]] * (len(read) // 2)


def sizes():
    return [f"--backbone.{name}={value}" for name, value in SMALL.items()]


def test_guidance_weighs_logits_in_float32():
    process = Absorbing(3)
    backbone = dit(process)
    one, none = torch.tensor([1]), torch.tensor([2])
    x_t = torch.tensor([[0, 3, 3]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = Guided(backbone, (one, none), 2.0)(x_t, None)
        parts = [
            backbone.decoder(backbone.encode(x_t, None, label)).float() for label in (one, none)
        ]
    assert torch.equal(logits, 2.0 * parts[0] + (1 - 2.0) * parts[1])


class Sides(LabelledSplit):
    """Sequences drawn from the law of their label."""

    def __init__(self, number, laws=LAWS):
        generator = torch.Generator().manual_seed(0)
        self.names = NAMES
        self.of = torch.randint(len(NAMES), (number,), generator=generator)
        drawn = [
            torch.multinomial(laws[y].probs.flatten(), 1, generator=generator) for y in self.of
        ]
        self.ids = ANY.sequences()[torch.cat(drawn)]

    def __len__(self):
        return len(self.of)

    def batch(self, rows):
        rows = list(rows)
        return Batch(self.ids[rows], torch.ones(len(rows), 2, dtype=torch.bool), self.of[rows])

    def split(self, name):
        return self

    def spread(self, number):
        return self

    def num_characters(self):
        return self.ids.numel()


@pytest.mark.slow
def test_the_bound_is_that_of_text_given_its_label():
    split = Sides(8000)
    truth = -float(
        torch.stack([LAWS[y].log_prob(x) for y, x in zip(split.of, split.ids, strict=True)]).mean()
    )
    found = evaluate(
        Nelbo(exact(Absorbing(3))),
        split,
        Accelerator(cpu=True),
        sequences=0,
        batch_size=500,
        protocol="exact",
        seed=4,
    )
    assert abs(found.nats_per_token - truth / 2) < 2 * found.standard_error
    without = -float(ANY.log_prob(split.ids).mean()) / 2
    assert without - truth / 2 > 2 * found.standard_error


def test_a_share_of_the_labels_is_left_out():
    labels = torch.arange(2).repeat(5000)
    dropped = without_some(labels, 2, 0.3, derive_generator(0))
    left_out = dropped == 2
    assert stats.binomtest(int(left_out.sum()), len(labels), 0.3).pvalue > 0.01
    assert torch.equal(dropped[~left_out], labels[~left_out])
    assert torch.equal(without_some(labels, 2, 0.0, derive_generator(0)), labels)


def trainer(**options):
    process = Absorbing(3, time_conditioned=True)
    objective = Nelbo(Model(process, LogLinear(), Mean(), dit(process)))
    chosen = TrainOptions(**{"steps": 9, "batch_size": 8, "warmup_steps": 0, **options})
    return Trainer(objective, Sides(20), chosen, accelerator=Accelerator(cpu=True), seed=3)


def labels_told(asked, monkeypatch):
    """Those that the network of a model is told, call by call."""
    read, encode = [], asked.backbone.encode

    def listen(inputs, sigma, labels=None, visibility=None):
        read.append(labels)
        return encode(inputs, sigma, labels)

    monkeypatch.setattr(asked.backbone, "encode", listen)
    return read


def labels_read(trained, monkeypatch, updates):
    read = labels_told(trained.objective.model, monkeypatch)
    for _ in range(updates):
        trained.update()
    return torch.cat(read)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_reads_the_labels_of_its_sequences(accumulate, monkeypatch):
    trained = trainer(label_dropout=0.0, accumulate=accumulate)
    read = labels_read(trained, monkeypatch, 3)
    rows = [row for step in range(3) for row in trained.feed.order.rows(step, 8)]
    assert torch.equal(read, trained.feed.split.of[rows])


def test_training_leaves_out_a_share_of_the_labels(monkeypatch):
    trained = trainer(label_dropout=0.5)
    read = labels_read(trained, monkeypatch, 9)
    rows = [row for step in range(9) for row in trained.feed.order.rows(step, 8)]
    left_out = read == 2
    assert torch.equal(read[~left_out], trained.feed.split.of[rows][~left_out])
    assert stats.binomtest(int(left_out.sum()), len(rows), 0.5).pvalue > 0.01


@pytest.mark.slow
def test_each_micro_batch_leaves_out_labels_of_its_own(monkeypatch):
    """Equal places in two micro-batches of a step are left out as often as chance has it."""
    trained = trainer(label_dropout=0.5, accumulate=4)
    read = labels_read(trained, monkeypatch, 30)
    left_out = (read == 2).view(30, 4, 2)
    for one, other in itertools.combinations(range(4), 2):
        same = (left_out[:, one] == left_out[:, other]).sum()
        assert stats.binomtest(int(same), 60, 0.5).pvalue > 0.001
    again = (left_out[1:] == left_out[:-1]).sum()
    assert stats.binomtest(int(again), 29 * 8, 0.5).pvalue > 0.001


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_leave_out_the_labels_that_the_whole_batch_does(accumulate, monkeypatch):
    """And not those of the same places in each."""
    whole = labels_read(trainer(label_dropout=0.5), monkeypatch, 6)
    read = labels_read(trainer(label_dropout=0.5, accumulate=accumulate), monkeypatch, 6)
    assert torch.equal(read, whole)
    left_out = (read == 2).view(6, accumulate, -1)
    assert not torch.equal(left_out, left_out[:, :1].expand_as(left_out))


def test_a_restored_trainer_with_labels_goes_on_bit_for_bit():
    whole = trainer(label_dropout=0.3)
    for _ in range(2):
        whole.update()
    saved = copy.deepcopy(whole.checkpoint())
    restored = trainer(label_dropout=0.3)
    restored.restore(saved, source="memory")
    for _ in range(2):
        assert whole.update() == restored.update()
    for name, parameter in whole.trained.items():
        assert torch.equal(parameter, restored.trained[name]), name
    assert any("label_map" in name for name in whole.trained)


def test_labels_are_of_one_batch_only():
    process = Absorbing(3)
    built = model(process, dit(process))
    backbone, names = built.backbone, [name for name, _ in built.named_parameters()]
    x0 = torch.tensor([[0, 1], [2, 2]])

    def bound(labels):
        draws = Draws.derive(0, step=0, first=0, total=2)
        return Nelbo(built).bound(Batch(x0, torch.ones_like(x0).bool(), labels), draws).total

    assert bound(torch.tensor([0, 1])) != bound(torch.tensor([1, 0]))
    assert built.backbone is backbone
    with pytest.raises(AssertionError, match="of the sequences of one batch"):
        bound(torch.tensor([0, 1, 1]))
    assert built.backbone is backbone
    assert [name for name, _ in built.named_parameters()] == names
    with pytest.raises(AssertionError, match="given exactly to networks that are told them"):
        bound(None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--backbone=hf --data.label=century",
            "data.label century needs a backbone that reads labels, but backbone is hf; "
            "choose backbone dit, or leave out --data.label",
        ),
        ("--process=ar --data.label=century", "the causal form reads no labels; leave out"),
        ("--sample.label=18th", "'18th', but this model has no labels; leave it out"),
        ("--data.label=century --sample.guidance=2", "no label to guide to; give --sample.label"),
        ("--data.label=century --sample.guidance=-1 --sample.label=a", "finite number of at least"),
        ("--data.label=century --sample.guidance=.inf --sample.label=a", "finite number"),
        ("--data.label=century --train.label_dropout=1", "label_dropout is 1; it must be at least"),
        ("--data.label=century --train.label_dropout=0", "never learns to write without a label"),
        (
            "--data.label=century --train.label_dropout=0 --sample.label=18th --sample.guidance=2",
            "never learns to write without a label",
        ),
        ("--backbone.num_labels=3", "backbone.num_labels is computed from the other parts"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(words, message):
    given_words = ["--process=mdlm", "--backbone=dit", *words.split()]
    with pytest.raises(UsageError) as raised:
        compose(given_words, load_plugins(), prog="test", environ={})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "parts", ["--process=mdlm --objective=sdtt", "--process=duo --objective=discrete-consistency"]
)
def test_a_teacher_is_told_the_labels_of_its_student(parts: str, monkeypatch):
    words = [*parts.split(), "--data.label=century", "--backbone.hidden_size=16"]
    composition, _ = compose(words, load_plugins(), prog="test", environ={})
    objective = composition.build(20, num_labels=3).objective
    for parameter in objective.parameters():
        nn.init.normal_(parameter, std=0.3)
    x0 = torch.randint(20, (4, 8), generator=torch.Generator().manual_seed(0))

    def loss(labels: torch.Tensor | None) -> torch.Tensor:
        draws = Draws.derive("test", step=0, first=0, total=4)
        return objective(Batch(x0, torch.ones_like(x0).bool(), labels), draws).total.detach()

    with pytest.raises(AssertionError):
        loss(None)
    read = [labels_told(model, monkeypatch) for model in (objective.model, objective.teacher)]
    found = []
    for label in range(2):
        labels = torch.full((4,), label)
        found.append(loss(labels))
        for told in read:
            assert told
            assert all(torch.equal(one, labels) for one in told)
            told.clear()
    assert found[0] != found[1]
    assert isinstance(objective.teacher.backbone, Dit)


def test_a_network_that_is_always_told_the_label_needs_no_dropout():
    words = ["--data.label=century", "--train.label_dropout=0", "--sample.label=18th"]
    composition, _ = compose(["--process=mdlm", *words], load_plugins(), prog="test", environ={})
    assert composition.train.label_dropout == 0


def test_a_backbone_that_cannot_be_told_labels_is_incompatible():
    with pytest.raises(IncompatibleError):
        compose(["--backbone=hf", "--data.label=century"], load_plugins(), prog="t", environ={})


def test_a_misspelt_label_is_asked_after():
    with pytest.raises(UsageError, match="unknown label 'rihgt'; did you mean right?"):
        guided(exact(Uniform(3)), NAMES, asked(label="rihgt"))
    with pytest.raises(UsageError, match="unknown label '7'; known: left, right"):
        guided(exact(Uniform(3)), NAMES, asked(label="7"))


@pytest.mark.parametrize("process", ["ar", "mdlm", "sedd", "d3pm", "duo", "gidd"])
def test_labels_and_documents_reach_the_network_of_every_family(process):
    sizes = [f"--backbone.{name}" for name in ("hidden_size=16", "num_blocks=1", "num_heads=2")]
    num_labels = 0 if process == "ar" else 3
    words = [f"--process={process}", *sizes, *(["--data.label=century"] if num_labels else ())]
    composition, _ = compose(words, load_plugins(), prog="test", environ={})
    torch.manual_seed(0)
    objective = composition.build(9, num_labels=num_labels).objective.eval()
    for weight in objective.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.5)
    x0 = torch.randint(9, (4, 6))

    def nats(*conditions):
        draws = Draws.derive(1, step=0, first=0, total=4)
        batch = Batch(x0, torch.ones_like(x0, dtype=torch.bool), *conditions)
        with torch.no_grad():
            return objective.bound(batch, draws).per_token

    labels = torch.tensor([0, 1, 2, 0]) if num_labels else None
    documents = torch.tensor([0, 0, 0, 1, 1, 1]).expand(4, 6)
    assert not torch.allclose(nats(labels), nats(labels, documents))
    if labels is not None:
        assert not torch.allclose(nats(labels), nats(labels.flip(0)))
