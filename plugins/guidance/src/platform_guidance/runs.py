"""Rewards from a trained run, which is named by its path.

    likelihood    log p(x), or log p(x | label)
    label         log p(label | x) by Bayes' rule, of clean texts and of single tokens of noisy ones

A run with labels is a classifier of noisy texts: the ratio of what it predicts with the label and
without is the ratio by which a token makes the label likelier.
"""

from functools import cached_property
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from platform_core.data.tokenizer import Tokenizer, load_tokenizer
from platform_core.draws import Draws
from platform_core.errors import UsageError
from platform_core.guidance import label_number
from platform_core.model import Denoiser, Model
from platform_core.parameterization import PredictsClean, ScoreBased
from platform_core.process import LOG_ZERO, Mixing
from platform_core.record.directory import RunDirectory
from platform_core.reward import Gains, Graded, Reward, Values
from platform_core.types import Batch, Labels, Logits, LogProbs, Noise, Selected, Tokens

if TYPE_CHECKING:
    from platform_core.evaluation.trained import TrainedRun


class Alike(Draws):
    """The draws of `total` sequences, which every text that is repeated so often has alike."""

    def times(self, batch: int, t_min: float = 0.0, parts: int = 1) -> Noise:
        """The same times for each text, one in each of `total` equal intervals."""
        return super().times(self.total, t_min, parts).repeat(batch // self.total, 1)

    def _seeds(self, batch: int) -> list[int]:
        return super()._seeds(self.total) * (batch // self.total)


class OfRun(Reward):
    """A reward from the likelihood of a run; its weights are read when the first text is drawn.

    Args:
        run: directory of the run; its tokenizer must be that of the texts.
        draws: noise levels at which each text is read, where the run has a bound only.
        tokenizer: tokenizer of the texts.

    Raises:
        UsageError: there is no run, or it has no checkpoint, or another tokenizer.
        ValueError: draws is below 1.
    """

    paths = ("run",)

    def __init__(self, run: str, draws: int = 8, tokenizer: Tokenizer | None = None) -> None:
        if draws < 1:
            raise ValueError(f"draws is {draws}; a text is read at 1 noise level at least")
        self.directory, self.draws = RunDirectory.existing(run), draws
        if not self.directory.steps():
            raise UsageError(f"{run} has no checkpoint yet; continue it with --resume {run}")
        if tokenizer is None:
            return
        own = load_tokenizer(self.directory.tokenizer)
        if own.to_dict() != tokenizer.to_dict():
            raise UsageError(
                f"{run} has another tokenizer than the texts ({own.vocab_size} tokens, not "
                f"{tokenizer.vocab_size}, or other ones); name a run that was trained with the same"
            )

    @cached_property
    def trained(self) -> "TrainedRun":
        """The run, with the weights that its own options evaluate."""
        from accelerate import Accelerator

        from platform_core.evaluation.trained import TrainedRun

        run = TrainedRun.open(self.directory.path, accelerator=Accelerator())
        return run.with_average(run.composition.evaluate.weights)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the run's labels; empty if it reads none."""
        return self.directory.label_names()

    def prepare(self, model: Model) -> None:
        """Read the run's weights.

        Raises:
            UsageError: the run's objective has no bound.
        """
        with torch.random.fork_rng(devices=[]):  # which the first weights are drawn from
            objective = self.trained.objective
        objective.to(model.device)
        if not objective.has_bound:
            name = self.trained.composition.names["objective"]
            raise UsageError(
                f"{self.directory.path} was trained by objective {name}, which is no bound on the "
                "likelihood; name another run"
            )

    @torch.no_grad()
    def log_likelihood(self, texts: Tokens, label: int | None) -> Values:
        """Log-likelihood of each text in nats, or the bound below it, estimated at `draws` levels.

        All texts are read with the same noise, so that their estimates can be compared.

        Args:
            texts: `[batch, length]`.
            label: number of a label, or that of none; None for a run without labels.
        """
        objective = self.trained.objective
        times = self.draws if objective.noise_levels else 1
        self.calls += times
        size = max(1, self.trained.composition.evaluate.batch_size // times)
        found = []
        for first in range(0, len(texts), size):
            x0 = texts[first : first + size].repeat_interleave(times, 0)
            mask = torch.ones_like(x0, dtype=torch.bool)
            labels = None if label is None else torch.tensor([label], device=x0.device)
            draws = Alike.derive(0, "reward", step=0, first=0, total=times, device=x0.device)
            loss = objective.bound(Batch(x0, mask, labels, full=mask), draws)
            found.append(-loss.per_token.double().sum(-1).view(-1, times).mean(-1))
        return torch.cat(found)


@final
class Likelihood(OfRun):
    """The log-likelihood of a text under another run, in nats.

    It is exact under a run of process ar. Under other runs it is the bound below it, estimated at
    `draws` noise levels, the same for all texts.

    Args:
        run: directory of the run; its tokenizer must be that of the texts.
        label: log p(x | label) under a run with labels; by default log p(x), or that without a
            label.
        draws: noise levels at which each text is read, where the run has a bound only.

    Raises:
        UsageError: there is no run, or no label of this name; or it has no checkpoint, or another
            tokenizer.
        ValueError: draws is below 1.
    """

    def __init__(
        self,
        run: str,
        label: str | None = None,
        draws: int = 8,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        super().__init__(run, draws, tokenizer)
        if label is not None and not self.names:
            raise UsageError(f"{run} was trained without labels; leave out label {label!r}")
        self.label = label_number(self.names, label) if self.names else None

    def __call__(self, texts: Tokens) -> Values:
        return self.log_likelihood(texts, self.label)


@final
class Label(OfRun, Graded):
    """The log-probability of a label given the text, by a run that was trained with labels.

        log p(y | x) = log p(x | y) - log of the sum over all labels y' of p(x | y')

    All labels are equally likely before the text is read. Of single tokens of a noisy text the run
    says, from one prediction with the label and one without,

        log p(y | a, the others) = log q_s(a | y, the others) - log q_s(a | the others)

    up to a constant, for every token a at once: Bayes' rule, exact if the predictions are. The run
    must have the noise of the texts, and have learned to write without a label
    (--train.label_dropout).

    Args:
        run: directory of the run; its tokenizer must be that of the texts.
        label: name of the label.
        draws: noise levels at which each text is read, where the run has a bound only.

    Raises:
        UsageError: there is no run, or it has no labels, or none of this name; or it has no
            checkpoint, or another tokenizer.
        ValueError: draws is below 1.
    """

    def __init__(
        self, run: str, label: str, draws: int = 8, tokenizer: Tokenizer | None = None
    ) -> None:
        super().__init__(run, draws, tokenizer)
        if not self.names:
            raise UsageError(
                f"{run} was trained without labels, so it is no classifier; name a run that was "
                "trained with --data.label"
            )
        self.label = label_number(self.names, label)

    def __call__(self, texts: Tokens) -> Values:
        each = [self.log_likelihood(texts, label) for label in range(len(self.names))]
        return torch.stack(each, dim=-1).log_softmax(-1)[:, self.label]

    def prepare_gains(self, model: Model) -> None:
        """Read the run's weights.

        Raises:
            UsageError: the run has other noise than the model, or always needs a label.
        """
        super().prepare_gains(model)
        path, own = self.directory.path, self.trained.model
        if not _same_noise(own, model):
            raise UsageError(
                f"{path} has other noise than this run, so it cannot read its noisy texts; name a "
                "run of the same process and states"
            )
        if self.trained.composition.train.label_dropout == 0:
            raise UsageError(
                f"{path} never learned to write without a label, which guidance compares with; "
                "train it with --train.label_dropout 0.1"
            )

    def gains(self, x_t: Tokens, selected: Selected, alpha_s: Noise, alpha_t: Noise) -> Gains:
        """The gain in log p(label) of each state at one position, from two predictions."""
        denoiser = Denoiser(self.trained.model)
        numbers = torch.tensor([[self.label], [len(self.names)]], device=x_t.device)
        with_label, without = (
            log_earlier(denoiser, x_t, selected, (alpha_s, alpha_t), label) for label in numbers
        )
        self.calls += denoiser.calls
        # Where neither gives a state any probability, as masks in the last step, nothing is gained.
        return torch.where(with_label == without, 0.0, with_label - without)


def log_earlier(
    denoiser: Denoiser,
    x_t: Tokens,
    selected: Selected,
    levels: tuple[Noise, Noise],
    label: Labels,
) -> LogProbs:
    """log q_s(a | the others, label) of each state at the selected positions, `[rows, states]`.

    Args:
        denoiser: a conditional model.
        x_t: noisy texts.
        selected: the positions.
        levels: signal level of the state, and of the others: `[1, 1]` each.
        label: number of the label, `[1]`.
    """
    process, parameterization = denoiser.process, denoiser.parameterization
    assert isinstance(process, Mixing), "see prepare_gains"

    def read(logits: Logits, x: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tensor:
        logits = logits.double()
        if isinstance(parameterization, PredictsClean):
            log_x0 = parameterization.log_x0(logits, x, alpha_t, process)
            signal = log_x0 + alpha_s.log()[:, None]
            noise = process.log_noise_row(alpha_s, log_x0)
            return torch.logaddexp(signal, noise).clamp_min(LOG_ZERO)
        score = parameterization.log_score(logits, x, alpha_t, process)
        earlier = process.staggered_score(score.exp(), alpha_s, alpha_t)
        return earlier.clamp_min(0).log().clamp_min(LOG_ZERO).log_softmax(-1)

    told = {"labels": label}
    return denoiser.read(x_t, levels[1].expand(len(x_t), 1), selected, read, levels, told)


def _same_noise(own: Model, other: Model) -> bool:
    """Whether two models have the same states, and the same noise at every signal level."""
    one, two = own.process, other.process
    if not isinstance(one, Mixing) or not isinstance(two, Mixing):
        return False
    if not isinstance(own.parameterization, ScoreBased) or one.num_states != two.num_states:
        return False
    alpha = torch.tensor([0.2, 0.8], dtype=torch.float64)
    states = torch.arange(one.num_states).expand(2, -1)
    return torch.equal(one.noise(states, alpha[:, None]), two.noise(states, alpha[:, None]))
