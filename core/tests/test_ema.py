"""The average of weights: the golden values, and the swap."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from platform_core.training.ema import Ema

GOLDEN = load_file(Path(__file__).parent / "golden" / "o_ema.safetensors")


def test_five_updates_give_the_golden_shadows():
    live = {name: GOLDEN[f"o.ema/input/param_{name}"][0].clone() for name in "ab"}
    ema = Ema(live, decay=0.9999)
    for update in range(1, 6):
        for name, tensor in live.items():
            tensor.copy_(GOLDEN[f"o.ema/input/param_{name}"][update])
        ema.update()
        for name, shadow in ema.shadow.items():
            expected = GOLDEN[f"o.ema/output/shadow_{name}"][update]
            torch.testing.assert_close(shadow, expected, rtol=1e-6, atol=1e-7)


def test_a_decay_of_zero_follows_the_parameters():
    live = {"w": torch.tensor([1.0])}
    ema = Ema(live, decay=0.0)
    live["w"].fill_(5.0)
    ema.update()
    assert ema.shadow["w"].item() == 5.0


def test_applied_puts_the_average_in_place_and_back_again_even_after_an_error():
    live = {"w": torch.tensor([1.0])}
    ema = Ema(live, decay=0.5)
    live["w"].fill_(3.0)
    seen = []

    def fail():
        with ema.applied():
            seen.append(live["w"].item())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [1.0]
    assert live["w"].item() == 3.0
    assert ema.shadow["w"].item() == 1.0


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match="ema_decay"):
        Ema({}, decay)
