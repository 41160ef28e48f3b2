"""What positions of a network of transformers may see, as the network's own arguments.

    network(inputs_embeds, attention_mask [batch, 1, length, length], position_ids [batch, length])

transformers hands a mask of four dimensions to every layer as it is. Whether a network obeys it is
tried once, when it is first used.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from platform_core.data.hub import quiet
from platform_core.errors import UsageError
from platform_core.types import Hidden
from platform_core.visibility import Visibility, block_causal
from platform_hf.library import FAILURES
from platform_hf.network import TRIED_LENGTH, Reading, first_position


def arguments(
    network: PreTrainedModel, visibility: Visibility, embedded: Hidden, *, causal: bool
) -> dict[str, Tensor]:
    """The mask and the positions for inputs `[batch, length, width]`."""
    batch, length, _ = embedded.shape
    seen = visibility.dense((batch, length), embedded.device)
    if causal:
        seen = seen & torch.ones_like(seen).tril()
    hidden = torch.finfo(embedded.dtype).min
    mask = torch.zeros(seen.shape, dtype=embedded.dtype, device=embedded.device)
    mask = mask.masked_fill(~seen, hidden)[:, None].expand(batch, -1, -1, -1)
    positions = visibility.positions
    if positions is None:
        positions = torch.arange(length, device=embedded.device)[None]
    return {
        "attention_mask": mask,
        "position_ids": (positions + first_position(network)).expand(batch, -1),
    }


def require_window(network: PreTrainedModel, length: int) -> None:
    """Refuse a network whose layers see a window of the text, which a mask would replace.

    Raises:
        UsageError: the text is longer than the window.
    """
    window = getattr(network.config, "sliding_window", None)
    kinds = getattr(network.config, "layer_types", None) or ["sliding_attention"]
    if window is not None and length > window and "sliding_attention" in kinds:
        raise UsageError(
            f"{type(network).__name__} sees {window} tokens at a time, so it cannot be told which "
            f"of {length} tokens see each other; shorten sequences, or choose bert, gpt2 or llama"
        )


@torch.no_grad()
def require_obedient(network: PreTrainedModel, reading: Reading) -> None:
    """Refuse a network that sees what a mask hides.

    Raises:
        UsageError: it does, or refuses the mask.
    """
    name = type(network).__name__
    if reading.attention == "flash":
        raise UsageError(
            "attention flash cannot hide positions from each other, as document masks and blocks "
            "do; choose attention auto or sdpa"
        )
    table = network.get_input_embeddings()
    device = next(network.parameters()).device
    ids = torch.arange(TRIED_LENGTH, device=device)[None] % reading.num_states
    apart = block_causal(torch.arange(TRIED_LENGTH, device=device) // 2)
    training = network.training
    network.eval()
    features = []
    try:
        with quiet():
            for change in (0, 1):
                text = ids.clone()
                text[:, -1] = (text[:, -1] + change) % reading.num_states
                embedded = table(text)
                told = arguments(network, apart, embedded, causal=reading.causal)
                features.append(network(inputs_embeds=embedded, **told).logits)
    except (*FAILURES, TypeError) as error:
        raise UsageError(
            f"{name} cannot be told what positions see ({error}); choose bert, gpt2 or llama"
        ) from error
    finally:
        network.train(training)
    if not torch.equal(features[0][:, :2], features[1][:, :2]):
        raise UsageError(
            f"{name} sees positions that are hidden from it; choose bert, gpt2 or llama, or leave "
            "out document masks and blocks"
        )
