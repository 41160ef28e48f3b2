"""Laws of parameterizations with a score, tested with each process of `partners.settings`.

The inputs are rows of random logits, eight rows for each state x_t that the network may have read.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from platform_core.categorical import KeepAll
from platform_core.draws import derive_generator
from platform_core.parameterization import MaskFree, PredictsClean, ScoreBased
from platform_core.process import Diffusion
from platform_core.testing.law import Figures, Laws, require
from platform_core.testing.partners import Setting, exact_backbone, score_error, settings
from platform_core.testing.process import DRAWS, agree, drawn_from, level
from platform_core.testing.subject import Subject
from platform_core.testing.toy import two_token_law
from platform_core.types import Logits, Tokens

LAWS = Laws("parameterization")

VOCABULARY = 4
ALPHA_S, ALPHA_T = 0.7, 0.4


@dataclass(frozen=True)
class Rows:
    """Inputs of a parameterization: in each row, a noisy token x_t and the network's logits."""

    setting: Setting
    parameterization: ScoreBased
    process: Diffusion
    logits: Logits
    x_t: Tokens

    @property
    def alpha(self) -> Tensor:
        """The signal level of all rows."""
        return level(ALPHA_T)

    @property
    def noisy(self) -> Tensor:
        """Whether noise can have reached the token of each row, `[rows]`."""
        return self.process.changeable(self.x_t)

    def log_x0(self, logits: Logits | None = None) -> Tensor:
        """The predicted log-probabilities of the clean tokens."""
        assert isinstance(self.parameterization, PredictsClean)
        logits = self.logits if logits is None else logits
        return self.parameterization.log_x0(logits, self.x_t, self.alpha, self.process)

    def log_score(self, logits: Logits | None = None) -> Tensor:
        logits = self.logits if logits is None else logits
        return self.parameterization.log_score(logits, self.x_t, self.alpha, self.process)


def rows(subject: Subject, scale: float = 2.0) -> Iterator[Rows]:
    """Yield eight rows for each state, in each setting of the part."""
    for setting in settings(subject):
        process, parameterization = setting.parts(VOCABULARY)
        assert isinstance(process, Diffusion)
        assert isinstance(parameterization, ScoreBased)
        x_t = torch.arange(process.num_states).repeat(8)
        shape = (len(x_t), process.num_states)
        generator = derive_generator("logits")
        logits = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        yield Rows(setting, parameterization, process, logits, x_t)


@LAWS.law(needs=PredictsClean)
def rows_normalise(subject: Subject) -> Figures:
    """The probabilities of every row of log_x0 sum to 1, also for extreme logits."""
    for scale in (1.0, 30.0):
        for asked in rows(subject, scale):
            total = asked.log_x0().exp().sum(-1)
            figures = agree(f"a sum {asked.setting}", total, torch.ones_like(total))
    return figures


@LAWS.law(needs=MaskFree)
def nothing_on_the_mask(subject: Subject) -> Figures:
    """log_x0 has no probability on the mask, however large its logit."""
    for asked in rows(subject):
        logits = asked.logits.clone()
        logits[:, VOCABULARY:] += 50
        mask = asked.log_x0(logits)[:, VOCABULARY:].exp()
        figures = agree(f"the probability of a mask {asked.setting}", mask, torch.zeros_like(mask))
    return figures


@LAWS.law(needs=ScoreBased)
def carries_over(subject: Subject) -> Figures:
    """A reverse step opens no token that noise cannot have reached; and if log_x0 depends on such a
    token, it predicts the token with certainty.
    """
    said = []
    for asked in rows(subject):
        clean = ~asked.noisy
        levels = (level(a).expand(len(asked.x_t)) for a in (ALPHA_S, ALPHA_T))
        opened, _ = asked.parameterization.thin(
            asked.x_t, *levels, process=asked.process, generator=derive_generator("thin")
        )
        require(not (opened & clean).any(), f"{asked.setting}: a token without noise is opened")
        if clean.any() and isinstance(asked.parameterization, PredictsClean):
            said.append(f"{asked.setting}: {_substitution(asked, asked.parameterization)}")
    return "; ".join(said) or None


def _substitution(asked: Rows, parameterization: PredictsClean) -> str:
    """Whether log_x0 substitutes tokens without noise, as text; if so, require certainty."""
    tokens = asked.x_t[~asked.noisy][: VOCABULARY * 2]
    same = asked.logits[:1].expand(len(tokens), -1)
    law = parameterization.log_x0(same, tokens, asked.alpha, asked.process).exp()
    if (law - law[:1]).abs().max() < 1e-12:
        return "tokens without noise are not substituted"
    here = law.gather(-1, tokens[:, None])
    agree(f"the probability of the token itself {asked.setting}", here, torch.ones_like(here))
    return "tokens without noise are substituted"


@LAWS.law(needs=ScoreBased)
def exact_when_the_network_is(subject: Subject) -> Figures:
    """With exact logits, the score is exact."""
    law, worst = two_token_law(), 0.0
    for setting in settings(subject):
        process, parameterization = setting.parts(law.num_tokens)
        assert isinstance(process, Diffusion)
        assert isinstance(parameterization, ScoreBased)
        backbone = exact_backbone(law, process, parameterization)
        error = score_error(law, process, parameterization, backbone)
        require(error < 1e-9, f"{setting}: the score is off by {error:.3g}")
        worst = max(worst, error)
    return f"largest difference {worst:.1e}"


@LAWS.law(needs=ScoreBased)
def score_of_itself(subject: Subject) -> Figures:
    """log_score is 0 at x_t and nowhere NaN."""
    for asked in rows(subject):
        score = asked.log_score()[asked.noisy]
        require(not score.isnan().any(), f"{asked.setting}: log_score is NaN")
        here = score.gather(-1, asked.x_t[asked.noisy][:, None])
        figures = agree(f"log_score at x_t {asked.setting}", here, torch.zeros_like(here))
    return figures


@LAWS.law(needs=ScoreBased)
def finite_gradients(subject: Subject) -> Figures:
    """Gradients of the score with respect to the logits are finite and not all 0, also for extreme
    logits.
    """
    for scale in (1.0, 30.0):
        for asked in rows(subject, scale):
            logits = asked.logits.clone().requires_grad_()
            score = asked.log_score(logits)[asked.noisy]
            (gradient,) = torch.autograd.grad(score.clamp_min(-1e3).sum(), logits)
            require(bool(gradient.isfinite().all()), f"{asked.setting}: a gradient is not finite")
            require(bool(gradient.abs().max() > 0), f"{asked.setting}: all gradients are 0")
    return None


@LAWS.law(needs=ScoreBased)
def float32_at_least(subject: Subject) -> Figures:
    """The score is float32 for logits in bfloat16 or float32 and float64 for logits in float64; the
    logits are not modified.
    """
    wider = {torch.bfloat16: torch.float32, torch.float32: torch.float32}
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        for asked in rows(subject):
            logits = asked.logits.to(dtype)
            before = logits.clone()
            found = asked.log_score(logits).dtype
            figures = f"{asked.setting}: for {dtype} it is {found}"
            require(found == wider.get(dtype, dtype), figures)
            require(torch.equal(logits, before), f"{asked.setting}: the logits were changed")
    return None


@LAWS.law(needs=ScoreBased)
def most_likely_is_a_token(subject: Subject) -> Figures:
    """most_likely returns tokens of the vocabulary, however large the logit of a mask."""
    for asked in rows(subject):
        logits = asked.logits.clone()
        logits[:, VOCABULARY:] += 50
        found = asked.parameterization.most_likely(logits, asked.x_t, asked.alpha, asked.process)
        figures = f"{asked.setting}: {found.min()} to {found.max()} of {VOCABULARY} tokens"
        require(0 <= int(found.min()) <= int(found.max()) < VOCABULARY, figures)
    return None


@LAWS.law(needs=ScoreBased)
def reverse_draws(subject: Subject) -> Figures:
    """thin and draw_open, one after the other, draw from the reverse step of the score."""
    lowest, law = 1.0, two_token_law()
    for setting in settings(subject):
        process, parameterization = setting.parts(law.num_tokens)
        assert isinstance(process, Diffusion)
        assert isinstance(parameterization, ScoreBased)
        backbone = exact_backbone(law, process, parameterization)
        sigma = -level(ALPHA_T)[None].log() if process.time_conditioned else None
        for state in range(process.num_states):
            x_t = torch.full((1, law.length), state)
            if not process.changeable(x_t).all():
                continue
            logits = backbone(x_t, sigma)[0, :1]
            one = x_t[0, :1]
            score = parameterization.log_score(logits, one, level(ALPHA_T), process)
            probs = process.reverse(score, one, level(ALPHA_S), level(ALPHA_T))[0]
            drawn = _draw(parameterization, process, logits.expand(DRAWS, -1), state)
            what = f"{setting}, from state {state}"
            lowest = min(lowest, drawn_from(what, drawn, probs / probs.sum()))
    return f"lowest p: {lowest:.2g}"


def _draw(parameterization: ScoreBased, process: Diffusion, logits: Logits, state: int) -> Tokens:
    """Draw an earlier token x_s from the state x_t, once for each row of logits."""
    generator = derive_generator("reverse", state)
    x_t = torch.full((len(logits),), state)
    alpha_s, alpha_t = (level(a).expand(len(logits)) for a in (ALPHA_S, ALPHA_T))
    opened, opened_s = parameterization.thin(
        x_t, alpha_s, alpha_t, process=process, generator=generator
    )
    x_t[opened] = parameterization.draw_open(
        logits[opened],
        x_t[opened],
        opened_s.expand(len(logits))[opened],
        alpha_t[opened],
        process=process,
        truncation=KeepAll(),
        generator=generator,
    )
    return x_t
