"""The platform's networks as models of transformers: importing this module registers them.

    import platform_core.transformers
    model = AutoModelForMaskedLM.from_pretrained(DIR)      # DIR of `platform export`

Use AutoModelForCausalLM for the process `ar`. No code is loaded from the folder; the parts come
from the installed plugins. `.logits` are the network's raw output, before the parameterization.
"""

from tempfile import NamedTemporaryFile
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutput, MaskedLMOutput

from platform_core.backbone import Backbone
from platform_core.composition.compose import compose
from platform_core.registry.loading import load_plugins
from platform_published.export import MODEL_TYPE


class PlatformConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is not read by mypy
    """The config.json of an exported run.

    Args:
        composition: the run's config.yaml.
        vocab_size: states of the network, the mask among them.
        text_vocab_size: tokens of the run's tokenizer.
        time_conditioned: whether the network is told the noise level.
        other: fields of every model of transformers.
    """

    model_type = MODEL_TYPE

    def __init__(
        self,
        composition: str = "",
        vocab_size: int = 0,
        text_vocab_size: int = 0,
        time_conditioned: bool = False,
        **other: Any,
    ) -> None:
        super().__init__(**other)
        self.composition = composition
        self.vocab_size = vocab_size
        self.text_vocab_size = text_vocab_size
        self.time_conditioned = time_conditioned


class PlatformModel(PreTrainedModel):  # type: ignore[misc]
    """Base class of both heads: a backbone of the platform as a model of transformers."""

    config_class = PlatformConfig
    main_input_name = "input_ids"

    def __init__(self, config: PlatformConfig) -> None:
        super().__init__(config)
        self.backbone = network(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keep the weights, because networks of the platform initialise themselves."""

    def logits(
        self, input_ids: Tensor, timesteps: Tensor | None, attention_mask: Tensor | None
    ) -> Tensor:
        """The network's output for every position.

        Raises:
            ValueError: positions are masked out, which these networks do not support; or a noise
                level is given to a network that is told none.
        """
        if attention_mask is not None and not bool(attention_mask.all()):
            raise ValueError("the network sees every position; pass texts of one length unpadded")
        if self.config.time_conditioned:
            level = torch.zeros(1, device=input_ids.device) if timesteps is None else timesteps
            sigma = level.reshape(-1, 1).float().expand(len(input_ids), 1)
        elif timesteps is not None:
            raise ValueError("the network is told no noise level; leave timesteps out")
        else:
            sigma = None
        found: Tensor = self.backbone(input_ids, sigma)
        return found


class PlatformForMaskedLM(PlatformModel):
    """A bidirectional network as a masked language model."""

    def forward(
        self,
        input_ids: Tensor,
        timesteps: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Raw logits `[batch, length, vocab_size]`.

        Args:
            input_ids: token ids, `[batch, length]`.
            timesteps: noise level sigma = -log alpha of each text, `[batch]`, for networks that are
                told it; by default 0, text without noise.
            attention_mask: None or all ones.
            return_dict: False for a tuple.
        """
        logits = self.logits(input_ids, timesteps, attention_mask)
        return (logits,) if return_dict is False else MaskedLMOutput(logits=logits)


class PlatformForCausalLM(PlatformModel):
    """A causal network: the logits of a position predict the next token."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Raw logits `[batch, length, vocab_size]`.

        Args:
            input_ids: token ids, `[batch, length]`, beginning with the start of the process `ar`.
            attention_mask: None or all ones.
            return_dict: False for a tuple.
        """
        logits = self.logits(input_ids, None, attention_mask)
        return (logits,) if return_dict is False else CausalLMOutput(logits=logits)


def network(config: PlatformConfig) -> Backbone:
    """The network that a run's config describes, on the current default device."""
    with NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(config.composition)
        file.flush()
        composition, _ = compose(
            ["--config", file.name], load_plugins(), prog="from_pretrained", environ={}
        )
    return composition.build(config.text_vocab_size).model.backbone


AutoConfig.register(MODEL_TYPE, PlatformConfig)
AutoModelForMaskedLM.register(PlatformConfig, PlatformForMaskedLM)
AutoModelForCausalLM.register(PlatformConfig, PlatformForCausalLM)
