"""The model, which objectives train and samplers draw from.

`Model` holds a process, schedule, parameterization and backbone of any kind. `Denoiser` uses these
four as a diffusion model: it calls the network at a signal level and takes reverse steps by rows.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from platform_core import categorical, rows
from platform_core.backbone import Backbone, Conditional, Sighted
from platform_core.categorical import Truncation
from platform_core.learned import learns, require_module
from platform_core.parameterization import Parameterization, ScoreBased
from platform_core.process import Diffusion, Masking, Process, Thinned
from platform_core.schedule import Schedule
from platform_core.types import (
    Conditions,
    Hidden,
    Inputs,
    Logits,
    LogProbs,
    Noise,
    Selected,
    Tokens,
)
from platform_core.visibility import Visibility, same_document

Tensors = Mapping[str, Tensor]
"""Weights or buffers by their names in a module."""

Watch = Callable[[Inputs, Noise], None]
"""A function of a network call's inputs and signal level, called before the network answers."""

MIN_ALPHA = 1e-4
"""Lowest signal level that the network is told; lower levels are rare and carry no information."""


BACKBONE = "model.backbone."
"""Beginning of the names of the network's tensors in an objective."""


class Model(nn.Module):
    """Process, schedule, parameterization and backbone in one module.

    The backbone is a module with weights; each of the others may be one (`platform_core.learned`).
    `watch`, if given, is called before every network call that a `Denoiser` of this model makes.

    Raises:
        UsageError: a part has weights, and is no module.
    """

    def __init__(
        self,
        process: Process,
        schedule: Schedule,
        parameterization: Parameterization,
        backbone: Backbone,
        watch: Watch | None = None,
    ) -> None:
        super().__init__()
        parts = (process, schedule, parameterization)
        for role, part in zip(("process", "schedule", "parameterization"), parts, strict=True):
            require_module(role, part)
        self.process = process
        self.schedule = schedule
        self.parameterization = parameterization
        self.backbone = backbone
        self.watch = watch

    def with_backbone(self, backbone: Backbone) -> "Model":
        """The same model with another backbone."""
        return Model(self.process, self.schedule, self.parameterization, backbone, self.watch)

    def watched(self, watch: Watch | None) -> "Model":
        """The same model, with `watch` called before every network call; None watches none."""
        return Model(self.process, self.schedule, self.parameterization, self.backbone, watch)

    def encode(
        self,
        inputs: Inputs,
        sigma: Noise | None,
        conditions: Conditions | None = None,
        visibility: Visibility | None = None,
    ) -> Hidden:
        """The network's features of every position, given the conditions of the texts.

        Args:
            inputs: as in `Backbone.encode`.
            sigma: as in `Backbone.encode`.
            conditions: conditions of these texts (`Batch.conditions`): labels, for a `Conditional`
                backbone, and documents, which a `Sighted` backbone keeps apart.
            visibility: what else each position may see, for a `Sighted` backbone.
        """
        told: dict[str, Any] = dict(conditions or {})
        tokens = inputs if isinstance(inputs, Tensor) else inputs.ids
        assert {len(values) for values in told.values()} <= {1, len(tokens)}, (
            "labels and documents are of the sequences of one batch"
        )
        assert "labels" not in told or isinstance(self.backbone, Conditional), (
            "labels need a conditional backbone"
        )
        if "documents" in told:
            apart = same_document(told.pop("documents"))
            visibility = apart if visibility is None else visibility & apart
        if visibility is not None:
            assert isinstance(self.backbone, Sighted), "visibility needs a sighted backbone"
            told["visibility"] = visibility
        return self.backbone.encode(inputs, sigma, **told)

    @property
    def device(self) -> torch.device:
        """The device that holds the backbone's weights."""
        return next(self.backbone.parameters()).device


class Denoiser:
    """A model whose process is a diffusion and whose output is a score.

    Signal levels outside the range of the model's own schedule are clamped before the network is
    told them, so that a bound over all levels never uses a level that training did not. `calls`
    counts network evaluations.
    """

    def __init__(self, model: Model) -> None:
        assert isinstance(model.process, Diffusion), (
            "parts that use Denoiser require a diffusion process"
        )
        assert isinstance(model.parameterization, ScoreBased), (
            "parts that use Denoiser require a score"
        )
        self.process = model.process
        self.parameterization = model.parameterization
        self.schedule = model.schedule
        self.model = model
        self._levels = None if learns(model.schedule) else self._ends(torch.device("cpu"))
        self.calls = 0

    def _ends(self, device: torch.device) -> tuple[float, float]:
        """The lowest and the highest signal level that the network is told."""
        ends = torch.tensor([1.0, 0.0], dtype=torch.float64, device=device)
        noise, clean = self.schedule.alpha(ends).tolist()
        return max(noise, MIN_ALPHA), clean

    def encode(
        self,
        inputs: Inputs,
        alpha: Noise,
        conditions: Conditions | None = None,
        visibility: Visibility | None = None,
    ) -> Hidden:
        """Features of every position of noisy text at signal level alpha, `[batch, 1]`.

        An objective must pass the `conditions` of its batch in every call.

        Args:
            inputs: as in `Backbone.encode`.
            alpha: signal level; of each position for a `Sighted` backbone, `[batch, length]`.
            conditions: as in `Model.encode`.
            visibility: as in `Model.encode`.
        """
        self.calls += self.model.backbone.evaluations
        if self.model.watch is not None:
            self.model.watch(inputs, alpha)
        return self.model.encode(inputs, self.sigma(alpha), conditions, visibility)

    def sigma(self, alpha: Noise) -> Noise | None:
        """The noise level that the network is told at a signal level; None if it is told none."""
        if not self.process.time_conditioned:
            return None
        levels = self._levels or self._ends(alpha.device)
        return -alpha.clamp(*levels).log().float()

    def log_score(self, x_t: Tokens, alpha: Noise) -> LogProbs:
        """Score of every position at once: a definition that needs too much memory in practice."""
        logits = self.model.backbone.decoder(self.encode(x_t, alpha))
        return self.parameterization.log_score(logits, x_t, alpha, self.process)

    def draw_reverse(
        self,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        *,
        truncation: Truncation,
        generator: torch.Generator,
        fixed: Selected | None = None,
    ) -> Tokens:
        """One reverse step from alpha_t to alpha_s >= alpha_t; `fixed` positions keep their tokens.

        Positions whose tokens the parameterization keeps without asking the network are not
        decoded. If all positions keep their tokens, the network is not called.
        """
        thinned = self.parameterization.thin(
            x_t, alpha_s, alpha_t, process=self.process, generator=generator
        )
        return self.draw_open(
            x_t, thinned, alpha_t, truncation=truncation, generator=generator, fixed=fixed
        )

    def draw_open(
        self,
        x_t: Tokens,
        thinned: Thinned,
        alpha_t: Noise,
        *,
        truncation: Truncation,
        generator: torch.Generator,
        fixed: Selected | None = None,
        features: Hidden | None = None,
    ) -> Tokens:
        """The second half of a reverse step, which draws the open tokens of `thinned`.

        With `features` of every position of x_t, such as a sampler's cache has them, `[batch,
        length, width]`, the network is not called; else `encode` computes them.
        """

        def draw(logits: LogProbs, x: Tokens, s: Noise, t: Noise) -> Tokens:
            return self.parameterization.draw_open(
                logits, x, s, t, process=self.process, truncation=truncation, generator=generator
            )

        return self._replace(
            x_t,
            alpha_t,
            draw,
            (thinned.alpha_s, alpha_t),
            thinned.open,
            fixed,
            features=features,
        )

    def redraw(
        self,
        x_t: Tokens,
        alpha: Noise,
        chosen: Selected,
        *,
        truncation: Truncation,
        generator: torch.Generator,
    ) -> Tokens:
        """Chosen noisy tokens drawn again, each given all others, at the same signal level.

            p(x_t^l = y | the others) = score[y] / sum(score)

        With exact predictions and one chosen position in each text, texts keep their law q_t (a
        Gibbs step). Several at once do not see each other's change, so this is an approximation.
        Chosen tokens under masks are masked before the network reads them, because a token that is
        not masked says nothing about the others.
        """
        read_as = x_t
        if isinstance(self.process, Masking):
            read_as = x_t.masked_fill(chosen, self.process.mask_id)

        def draw(logits: Logits, x: Tokens, level: Noise) -> Tokens:
            score = self.parameterization.sharpened_score(
                logits.double(), x, level, process=self.process, truncation=truncation
            )
            return categorical.draw(score.softmax(-1), generator)

        found = self.read(read_as, alpha, chosen, draw, (alpha,))
        return x_t.masked_scatter(chosen, found)

    def most_likely(
        self,
        x_t: Tokens,
        alpha: Noise,
        *,
        fixed: Selected | None = None,
        features: Hidden | None = None,
    ) -> Tokens:
        """The most likely clean token at each position that noise can have reached.

        All other positions and `fixed` positions keep their tokens. With `features`, the network is
        not called.
        """

        def choose(logits: LogProbs, x: Tokens, a: Noise) -> Tokens:
            return self.parameterization.most_likely(logits, x, a, self.process)

        changing = self.process.changeable(x_t)
        return self._replace(x_t, alpha, choose, (alpha,), changing, fixed, features=features)

    @torch.no_grad()
    def read(
        self,
        x_t: Tokens,
        alpha: Noise,
        selected: Selected | rows.Places,
        read: Callable[..., Tensor],
        levels: tuple[Noise, ...] = (),
        conditions: Conditions | None = None,
        features: Hidden | None = None,
    ) -> Tensor:
        """Values of `read(logits, tokens, *levels)` at the selected positions, one row for each.

        The network is called once, or not at all if its `features` of every position are given, and
        only the selected positions are decoded, or those of `places`.
        """
        every = self.encode(x_t, alpha, conditions) if features is None else features
        places = rows.Places.of(selected) if isinstance(selected, Tensor) else selected
        if places.index is None and not places.every:
            # Such tokens have a law everywhere, also where it is thrown away.
            x_t = torch.where(places.selected, x_t, self._changeable(x_t.device))
        columns = (places.rows(x_t), *(places.rows(level.expand(x_t.shape)) for level in levels))
        return rows.collect(
            self.model.backbone.decoder,
            read,
            places.rows(every),
            columns,
            num_states=self.process.num_states,
        )

    def places(self, selected: Selected) -> rows.Places:
        """The selected positions for `read`: on a GPU, if there are few states, without looking for
        them, so that the host need not wait and every step has the same shapes.
        """
        return rows.Places.of(
            selected, static=rows.is_static(selected.device, self.process.num_states)
        )

    def _changeable(self, device: torch.device) -> Tokens:
        """A token that a reverse step may change, as a scalar."""
        states = torch.arange(self.process.num_states, device=device)
        return self.process.changeable(states).long().argmax()

    def _replace(
        self,
        x_t: Tokens,
        alpha: Noise,
        choose: Callable[..., Tokens],
        levels: tuple[Noise, ...],
        changing: Selected,
        fixed: Selected | None,
        features: Hidden | None = None,
    ) -> Tokens:
        places = self.places(changing if fixed is None else changing & ~fixed)
        if not len(places):
            return x_t
        found = self.read(x_t, alpha, places, choose, levels, features=features)
        return places.spread(found, x_t)


def above_noise(alpha: Noise) -> Noise:
    """The signal level, at least the lowest that networks are told; no score step begins at 0."""
    return alpha.clamp_min(MIN_ALPHA)


def weights(module: nn.Module) -> dict[str, Tensor]:
    """The tensors from which a module can be restored: parameters (tied ones once) and saved
    buffers.
    """
    saved = module.state_dict(keep_vars=True)
    buffers = {name: buffer for name, buffer in module.named_buffers() if name in saved}
    return dict(module.named_parameters()) | buffers


def first_not_finite(tensors: Tensors) -> str | None:
    """The name of the first tensor that holds NaN or an infinite number; None if all are finite."""
    return next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)
