"""Any language model of transformers as a backbone.

    x        = table(inputs) + shift(sigma)
    features = network(x)                       everything but the last layer
    logits   = decoder(features)

The module `network` builds and loads networks, `configuration` makes their configurations. Both
import transformers and are imported only when a backbone is made.
"""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from platform_core.backbone import FromElsewhere, Sighted
from platform_core.errors import UsageError
from platform_core.types import Hidden, Inputs, Labels, Noise
from platform_core.visibility import Visibility
from platform_hf.embedding import SigmaShift, embed


class Hf(Sighted, FromElsewhere):
    """A network of the transformers library, told the noise level where the process has one.

    Args:
        num_states: tokens of the vocabulary, and the mask where the process has one.
        causal: whether a position sees only those to its left.
        time_conditioned: whether the network is told the noise level.
        config: a model type (bert, modernbert, roberta, gpt2, llama, ...) in a small size; a folder
            with config.json; or the name of a repository on the Hugging Face hub.
        pretrained: start from the weights of that folder or repository (safetensors only).
        other_tokenizer: start from these weights also where the run's tokenizer has other tokens
            than theirs.
        hidden_size: width of the network; 128 for a bare model type, else the config's own.
        num_blocks: number of layers; 4 for a bare model type, else the config's own.
        num_heads: attention heads; 4 for a bare model type, else the config's own.
        mlp_ratio: width of the MLPs divided by hidden_size; 4 for a bare model type, else the
            config's own.
        max_length: longest sequence in tokens that the network can read; by default the config's
            own.
        dropout: dropout probability of all layers; by default the config's own, which is often 0.1.
        fields: any other field of the configuration, by its own name.
        attention: the kernel; auto is torch's own where the network can use it. flash needs the
            package flash-attn.
        description: config.json of that folder or repository, which the run keeps; written by the
            platform.

    Raises:
        UsageError: a config that is not found, sizes that do not fit, or a network that cannot read
            as the process needs.

    A causal process takes a network made to be read from left to right (or bert as a decoder). Any
    other process takes a masked language model, or a causal one made bidirectional. The
    noise level is added to the input embeddings by a map that starts at zero, so that a pretrained
    network starts as it was. Pretrained weights are read by `start`, when a new run begins.
    """

    def __init__(
        self,
        num_states: int,
        causal: bool,
        time_conditioned: bool,
        config: str = "bert",
        pretrained: bool = False,
        other_tokenizer: bool = False,
        hidden_size: int | None = None,
        num_blocks: int | None = None,
        num_heads: int | None = None,
        mlp_ratio: int | None = None,
        max_length: int | None = None,
        dropout: float | None = None,
        fields: dict[str, Any] | None = None,
        attention: Literal["auto", "sdpa", "eager", "flash"] = "auto",
        description: str | None = None,
    ) -> None:
        # Imported here, because transformers is slow to import and --help does not need it.
        from platform_hf import network as networks
        from platform_hf.configuration import Sizes, configure, kept_fields

        super().__init__()
        sizes = Sizes(hidden_size, num_blocks, num_heads, mlp_ratio, max_length, dropout)
        check_dropout(dropout)
        reading = networks.Reading(num_states, causal, attention)
        if pretrained:
            is_kept = kept_fields(config, description) is not None
            networks.require_weights(config, sizes, look=not is_kept)
        # As in weights, tables have the source's own size before they are resized.
        resized = pretrained and torch.get_default_device().type != "meta"
        described = configure(
            config,
            sizes,
            fields or {},
            num_states=None if resized else num_states,
            kept=description,
        )
        # Resizing changes the configuration of a network.
        self._start = networks.Start(config, copy.deepcopy(described), reading, other_tokenizer)
        self.network = network = networks.build(described, reading, resized=resized)
        self.head = networks.take_apart(network, reading)
        width = network.get_input_embeddings().embedding_dim
        self.shift = SigmaShift(width) if time_conditioned else None
        self._longest = networks.longest(network)
        self._reading = reading
        self._obeys = False
        self._num_states = num_states
        self._time_conditioned = time_conditioned
        self._pretrained = pretrained

    @classmethod
    def kept(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """config.json of a folder or repository, unless it is kept already.

        Raises:
            UsageError: there is no config.json that can be read, or weights are missing.
        """
        from platform_hf.configuration import Sizes, is_model_type, keep, kept_fields
        from platform_hf.network import require_weights

        source, description = options["config"], options["description"]
        if is_model_type(source):
            return {"description": None}
        if kept_fields(source, description) is not None:
            return {}
        if options["pretrained"]:
            require_weights(source, Sizes(), look=True)
        return {"description": keep(source)}

    def start(self, vocabulary: Mapping[str, int] | None, mask_id: int | None) -> Mapping[str, Any]:
        """Load the pretrained weights, if these are asked for, and say which they are.

        Raises:
            UsageError: the weights are missing, damaged, those of another network, or for other
                tokens than the run's tokenizer has.
        """
        if not self._pretrained:
            return {}
        from platform_hf import network as networks

        network, loaded = networks.load(self._start, vocabulary, mask_id)
        self.network = network
        self.head = networks.take_apart(network, self._start.reading)
        return loaded

    @property
    def decoder(self) -> nn.Linear:
        """The network's last layer, which may share its weights with the first."""
        return self.head

    def encode(
        self,
        inputs: Inputs,
        sigma: Noise | None,
        labels: Labels | None = None,
        visibility: Visibility | None = None,
    ) -> Hidden:
        """Inputs of the last layer at each position; in BERT, those after the head's transform.

        Args:
            inputs: token ids; or probabilities, or the top weights, under which embeddings are
                averaged.
            sigma: noise level, `[batch, 1]` or one per position; None where the network is not told
                it.
            labels: None, since the network reads none.
            visibility: what each position may see, and where it stands.

        Raises:
            UsageError: the sequences are longer than the network has positions for, or the network
                cannot be told what positions see.
        """
        assert labels is None, "the network reads no labels"
        embedded = embed(self.network.get_input_embeddings(), inputs, self._num_states)
        if self.shift is not None:
            assert sigma is not None, "a time-conditioned network is told the noise level"
            embedded = embedded + self.shift(sigma).to(embedded.dtype)
        told = {} if visibility is None else self._told(visibility, embedded)
        if visibility is None or visibility.positions is None:
            self._require_positions(embedded.shape[1])
        features: Hidden = self.network(inputs_embeds=embedded, **told).logits
        return features

    def _told(self, visibility: Visibility, embedded: Hidden) -> dict[str, torch.Tensor]:
        """The rule and the positions as arguments of the network."""
        from platform_hf import sight

        if not self._obeys:
            sight.require_obedient(self.network, self._reading)
            self._obeys = True
        length, positions = embedded.shape[1], visibility.positions
        sight.require_window(self.network, length)
        if positions is not None and self._longest is not None and length > self._longest:
            self._require_positions(int(positions.max()) + 1)
        return sight.arguments(self.network, visibility, embedded, causal=self._reading.causal)

    def _require_positions(self, length: int) -> None:
        if self._longest is not None and length > self._longest:
            raise UsageError(
                f"the network has positions for {self._longest} tokens, but sequences have "
                f"{length}; shorten them, or give a new network more with --backbone.max_length"
            )


def check_dropout(dropout: float | None) -> None:
    """Raises UsageError for a share outside [0, 1)."""
    if dropout is not None and not 0 <= dropout < 1:
        raise UsageError(f"dropout is {dropout:g}, but must be at least 0 and below 1, such as 0.1")
