"""Parts with weights: every part of a model may be a torch module, as the network is.

    class Learned(Schedule, nn.Module): ...       its parameters are trained with the network's

Checkpoints hold them with the objective (`runtime.state`), the average has them too, and evaluation
and samplers use the averaged ones. Where the noise depends on weights, so does the law of the texts
that the network reads; `DiffusionObjective` then adds the gradient of that law to the loss.
"""

from torch import Tensor, nn

from platform_core.errors import UsageError


def learns(part: object) -> bool:
    """Whether a part has weights that training changes."""
    return isinstance(part, nn.Module) and any(each.requires_grad for each in part.parameters())


def require_module(role: str, part: object) -> None:
    """Refuses a part that has weights without being a module: nobody would train or save them.

    Args:
        role: of the part, for the message.
        part: the part.

    Raises:
        UsageError: an attribute of the part is a module or a tensor that requires a gradient.
    """
    if isinstance(part, nn.Module):
        return
    for name, value in getattr(part, "__dict__", {}).items():
        if isinstance(value, nn.Module) or (isinstance(value, Tensor) and value.requires_grad):
            kind = type(part).__name__
            raise UsageError(
                f"the {role} {kind} has weights in its attribute {name}, which would neither be "
                f"trained nor saved, because {kind} is not a torch.nn.Module; derive it from "
                "nn.Module too"
            )
