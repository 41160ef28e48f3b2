"""Rewards: what texts are worth to samplers that prefer some texts to others.

    reward(x) -> one number for each text; samplers tilt by exp(strength x reward), or take the best

A sampler takes a reward by name (`Component.takes`): `--sampler.reward NAME`, with options
`--sampler.reward.OPTION`. A `Graded` reward can also say what single tokens of a noisy text are
worth, from which a sampler guides every step.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from platform_core.model import Model
from platform_core.types import Noise, Selected, Tokens

Values = Float[Tensor, " batch"]
Gains = Float[Tensor, "rows states"]


class Reward(ABC):
    """A number for each text; the larger, the better.

    `paths` names options that are paths; the config of a run keeps them absolute. `calls` counts
    the network evaluations that the reward has spent on a batch of texts; samplers add them to
    their own.
    """

    requires: ClassVar[Mapping[str, type]] = {}
    paths: ClassVar[tuple[str, ...]] = ()
    calls: int = 0

    def prepare(self, model: Model) -> None:  # noqa: B027  # most rewards need nothing
        """Get ready for texts of a model, on its device; samplers call this before they draw.

        Raises:
            UsageError: the reward does not suit the model.
        """

    @abstractmethod
    def __call__(self, texts: Tokens) -> Values:
        """The value of each text, in float64; of one text the same whatever the others are.

        Args:
            texts: clean tokens, `[batch, length]`.
        """


class Graded(Reward):
    """A reward that also values single tokens of noisy texts."""

    def prepare_gains(self, model: Model) -> None:
        """Get ready for noisy texts of a model too.

        Raises:
            UsageError: the reward does not suit the model or its noise.
        """
        self.prepare(model)

    @abstractmethod
    def gains(self, x_t: Tokens, selected: Selected, alpha_s: Noise, alpha_t: Noise) -> Gains:
        """What a noisy text is worth with each state at one position, `[rows, states]`.

            gains[row, a] = r(x_t with state a at the row's position) + a constant of the row

        Args:
            x_t: noisy texts, `[batch, length]`.
            selected: the positions, one row for each in their order.
            alpha_s: signal level of the state that is put there, `[1, 1]`.
            alpha_t: signal level of all other tokens, `[1, 1]`.
        """
