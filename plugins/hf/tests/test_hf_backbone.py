"""The backbone `hf`: shapes, what a token sees, the noise level, folders, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from platform_core.composition.options import TrainOptions
from platform_core.draws import Draws, derive_generator
from platform_core.errors import UsageError
from platform_core.evaluation.bound import evaluate
from platform_core.model import Model
from platform_core.objective import Nelbo
from platform_core.parameterization import Mean
from platform_core.process import Absorbing, Diffusion, Uniform
from platform_core.sampler import Ancestral, Prompt
from platform_core.schedule import LogLinear
from platform_core.training.trainer import Trainer
from platform_core.types import Batch, TopTokens
from platform_core.visibility import Visibility, same_document
from platform_hf.backbone import Hf

STATES, LENGTH = 19, 12
SMALL = {"hidden_size": 16, "num_blocks": 2, "num_heads": 2, "mlp_ratio": 2, "dropout": 0.0}
TYPES = ["bert", "modernbert", "roberta", "gpt2"]
CAUSAL = ["bert", "roberta", "gpt2", "llama", "modernbert-decoder"]


def network(
    config: str = "bert", *, causal: bool = False, told: bool = False, **options: Any
) -> Hf:
    torch.manual_seed(0)
    sizes = {} if "pretrained" in options else SMALL
    built = Hf(STATES, causal, told, config=config, **{**sizes, **options})
    if torch.get_default_device().type != "meta":
        built.start(None, None)
    return built.eval()


def randomised(built: Hf) -> Hf:
    """Also the weights that start at zero or near it, without which little would be seen."""
    generator = torch.Generator().manual_seed(1)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return built


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(STATES, (3, LENGTH), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def sigma() -> Tensor:
    return torch.tensor([[0.1], [1.0], [4.0]])


@pytest.mark.parametrize("config", TYPES)
@pytest.mark.parametrize("told", [False, True])
def test_features_and_logits_have_their_shapes(
    config: str, told: bool, ids: Tensor, sigma: Tensor
) -> None:
    built = network(config, told=told)
    level = sigma if told else None
    hidden = built.encode(ids, level)
    assert hidden.shape == (3, LENGTH, 16)
    assert built(ids, level).shape == (3, LENGTH, STATES)
    rows = built.decoder(hidden.flatten(0, 1)[::2])
    torch.testing.assert_close(rows, built(ids, level).flatten(0, 1)[::2])


@pytest.mark.parametrize("config", TYPES)
def test_the_decoder_is_linear_and_holds_all_that_it_uses(config: str) -> None:
    built = network(config)
    assert isinstance(built.decoder, nn.Linear)
    assert built.decoder.weight.shape == (STATES, 16)
    assert any(module is built.decoder for module in built.modules())


@pytest.mark.parametrize("config", TYPES)
@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_has_a_gradient(
    config: str, tied: bool, ids: Tensor, sigma: Tensor
) -> None:
    built = randomised(network(config, told=True, fields={"tie_word_embeddings": tied}))
    shared = built.decoder.weight is built.network.get_input_embeddings().weight
    assert shared == tied
    built(ids, sigma).square().sum().backward()
    without = [name for name, parameter in built.named_parameters() if parameter.grad is None]
    assert without == ([] if tied or config != "roberta" else ["network.lm_head.bias"])


@pytest.mark.parametrize("config", TYPES)
def test_every_token_is_read_and_learned_like_the_others(config: str) -> None:
    """Token 0 and 1 are padding to some of these types, whose row is zero and has no gradient."""
    built = network(config)
    table = built.network.get_input_embeddings().weight
    assert table.abs().amax(-1).min() > 0
    every = torch.arange(STATES)[None]
    (gradient,) = torch.autograd.grad(built.encode(every, None).square().sum(), table)
    assert gradient.abs().amax(-1).min() > 0


@pytest.mark.parametrize("config", TYPES)
def test_ids_and_one_hot_probabilities_and_a_single_top_token_are_alike(
    config: str, ids: Tensor, sigma: Tensor
) -> None:
    built = randomised(network(config, told=True))
    logits = built(ids, sigma)
    top = TopTokens(ids[..., None], torch.ones(*ids.shape, 1))
    torch.testing.assert_close(built(functional.one_hot(ids, STATES).float(), sigma), logits)
    torch.testing.assert_close(built(top, sigma), logits)


def test_top_tokens_are_averaged_under_their_weights(ids: Tensor) -> None:
    built = randomised(network())
    weights = torch.rand(*ids.shape, 3, generator=torch.Generator().manual_seed(3))
    chosen = torch.stack((ids, (ids + 1) % STATES, (ids + 2) % STATES), dim=-1)
    dense = torch.zeros(*ids.shape, STATES).scatter_(-1, chosen, weights)
    torch.testing.assert_close(built(TopTokens(chosen, weights), None), built(dense, None))


def test_networks_that_scale_their_embeddings_scale_averages_too(ids: Tensor) -> None:
    built = network("gemma3_text", fields={"head_dim": 8})
    one_hot = functional.one_hot(ids, STATES).float()
    torch.testing.assert_close(built(one_hot, None), built(ids, None))


@pytest.mark.parametrize("config", CAUSAL)
def test_causal_features_ignore_later_tokens(config: str, ids: Tensor) -> None:
    built = randomised(network(config, causal=True))
    changed = ids.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % STATES
    before, after = built(ids, None), built(changed, None)
    torch.testing.assert_close(before[:, :6], after[:, :6], rtol=0, atol=1e-5)
    assert not torch.isclose(before[:, 6:], after[:, 6:]).all(-1).any()


@pytest.mark.parametrize("config", [*TYPES, "llama"])
def test_other_features_depend_on_every_token(config: str, ids: Tensor) -> None:
    built = randomised(network(config))
    before = built(ids, None)
    for position in (0, LENGTH - 1):
        changed = ids.clone()
        changed[:, position] = (changed[:, position] + 1) % STATES
        assert not torch.isclose(before, built(changed, None), rtol=0, atol=1e-6).all(-1).any()


@pytest.mark.parametrize("config", TYPES)
def test_the_noise_level_changes_nothing_at_first_and_much_after(
    config: str, ids: Tensor, sigma: Tensor
) -> None:
    built = network(config, told=True)
    torch.testing.assert_close(built(ids, sigma), built(ids, 2 * sigma), rtol=0, atol=0)
    randomised(built)
    assert not torch.isclose(built(ids, sigma), built(ids, 2 * sigma)).all(-1).any()


def test_each_sequence_reads_its_own_level_and_each_position_may(
    ids: Tensor, sigma: Tensor
) -> None:
    built = randomised(network(told=True))
    alone = torch.cat([built(x[None], level[None]) for x, level in zip(ids, sigma, strict=True)])
    torch.testing.assert_close(built(ids, sigma), alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(built(ids, sigma.expand(ids.shape)), built(ids, sigma))


def test_a_network_that_is_not_told_the_level_has_no_weights_for_it() -> None:
    assert not any("shift" in name for name, _ in network().named_parameters())


@pytest.mark.parametrize("config", TYPES)
def test_it_is_built_on_the_meta_device(config: str) -> None:
    with torch.device("meta"):
        built = network(config, told=True)
    assert all(parameter.is_meta for parameter in built.parameters())
    assert built.decoder.weight.shape == (STATES, 16)


def test_bfloat16_autocast_is_close_to_float32(ids: Tensor, sigma: Tensor) -> None:
    built = network(told=True)
    exact = built(ids, sigma)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = built(ids, sigma)
    assert (rounded - exact).norm() / exact.norm() < 0.02


@pytest.mark.slow
def test_importing_the_backbone_does_not_import_transformers() -> None:
    code = "import sys, platform_hf.backbone; print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# What a configuration says


def test_a_bare_model_type_is_as_small_as_the_tiny_dit() -> None:
    with torch.device("meta"):
        built = Hf(STATES, False, False)
    config = built.network.config
    assert config.model_type == "bert"
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (128, 4, 4)
    assert config.intermediate_size == 512


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ("bert", ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")),
        ("gpt2", ("n_embd", "n_layer", "n_head", "n_inner")),
        ("distilbert", ("dim", "n_layers", "n_heads", "hidden_dim")),
        ("llama", ("hidden_size", "num_hidden_layers", "num_key_value_heads", "intermediate_size")),
        ("opt", ("hidden_size", "num_hidden_layers", "num_attention_heads", "ffn_dim")),
    ],
)
def test_sizes_go_by_the_names_of_the_model_type(config: str, names: tuple[str, ...]) -> None:
    with torch.device("meta"):
        built = network(config)
    assert tuple(getattr(built.network.config, name) for name in names) == (16, 2, 2, 32)


def test_dropout_replaces_every_share_of_the_configuration(ids: Tensor) -> None:
    built = network("gpt2", dropout=0.25)
    config = built.network.config
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.25, 0.25, 0.25)
    built.train()
    assert not torch.equal(built(ids, None), built(ids, None))


def test_other_fields_are_set_by_their_own_names() -> None:
    built = network("modernbert", fields={"local_attention": 4, "norm_bias": True})
    assert built.network.config.local_attention == 4
    assert any(name.endswith("norm.bias") for name, _ in built.network.named_parameters())


def test_a_window_of_attention_stays_a_window() -> None:
    """ModernBERT's layers of local attention: far tokens are seen through its global layers."""
    local = randomised(network("modernbert", fields={"layer_types": ["sliding_attention"] * 2}))
    ids = torch.zeros(1, 300, dtype=torch.long)
    changed = ids.clone()
    changed[:, -1] = 1
    same = torch.isclose(local(ids, None), local(changed, None)).all(-1)[0]
    assert same[:150].all()
    assert not same[-60:].any()


@pytest.mark.parametrize(
    ("config", "longest"), [("bert", 20), ("roberta", 18), ("gpt2", 20), ("llama", 20)]
)
def test_sequences_longer_than_the_positions_are_refused(config: str, longest: int) -> None:
    built = network(config, max_length=20)
    assert built(torch.zeros(1, longest, dtype=torch.long), None).shape[1] == longest
    with pytest.raises(UsageError, match=f"for {longest} tokens, .* --backbone.max_length"):
        built(torch.zeros(1, longest + 1, dtype=torch.long), None)


# What cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 100, "num_heads": 3}, "100 does not split into 3 heads; .* 99 or 102"),
        ({"config": "llama", "hidden_size": 6, "num_heads": 2}, "of even size; .* 4 or 8"),
        ({"hidden_size": 2, "num_heads": 4}, "choose hidden_size 4,"),
        ({"num_heads": 0}, "must be at least 1"),
        ({"dropout": 1.0}, "dropout is 1, .* such as 0.1"),
        ({"fields": {"hiden_act": "relu"}}, "bert has no field hiden_act; did you mean hidden_act"),
        ({"fields": {"hidden_act": 3}}, "model type bert: .*hidden_act"),
        (
            {"config": "gemma2"},
            "caps its logits .* give --backbone.fields.final_logit_softcapping null",
        ),
        (
            {"config": "t5"},
            "no language model with a single stack of layers; choose bert, .* llama",
        ),
        (
            {"config": "rwkv", "num_heads": None},
            "sees no tokens to the right, .* choose bert, .* such as ar",
        ),
        ({"config": "stablelm"}, "StableLmForCausalLM sees no tokens to the right"),
        ({"config": "xlm", "causal": True}, "sees tokens to the right, .* choose gpt2, llama"),
        ({"config": "squeezebert"}, "model type squeezebert: If you want embedding_size"),
        ({"config": "modernbert", "causal": True}, "both directions only, .* gpt2, llama or bert"),
        ({"pretrained": True}, "bert is a model type and has no weights; give a folder"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        network(**options)
    assert "\n" not in str(raised.value)


def test_a_misspelt_model_type_is_not_looked_for_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="brt is neither .* did you mean bert") as raised:
        network("brt")
    assert "\n" not in str(raised.value)


def test_a_repository_goes_through_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="nobody/nothing .* hub does not give it: We couldn't"):
        network("nobody/nothing")


# Folders


def saved(folder: Path, kind: str, num_states: int = STATES, **fields: Any) -> nn.Module:
    """A network of transformers in a folder, as its own code saves it."""
    import transformers

    torch.manual_seed(4)
    network_class = getattr(transformers, kind)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
    config = network_class.config_class(
        vocab_size=num_states, intermediate_size=32, pad_token_id=0, **sizes, **special, **fields
    )
    made: nn.Module = network_class(config)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    made.save_pretrained(folder)
    return made.eval()


@pytest.mark.parametrize(
    ("kind", "causal"),
    [
        ("BertForMaskedLM", False),
        ("ModernBertForMaskedLM", False),
        ("RobertaForMaskedLM", False),
        ("GPT2LMHeadModel", True),
    ],
)
def test_the_weights_of_a_folder_give_the_logits_of_transformers(
    kind: str, causal: bool, tmp_path: Path, ids: Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved(tmp_path, kind)
    capsys.readouterr()
    built = network(str(tmp_path), causal=causal, told=not causal, pretrained=True)
    level = None if causal else torch.ones(3, 1)
    inputs = {"inputs_embeds": source.get_input_embeddings()(ids)}
    torch.testing.assert_close(built(ids, level), source(**inputs).logits)
    assert capsys.readouterr().err == ""


def test_a_folders_configuration_alone_gives_a_new_network_of_its_sizes(tmp_path: Path) -> None:
    saved(tmp_path, "BertForMaskedLM")
    built = Hf(40, False, False, config=str(tmp_path))
    assert built.decoder.weight.shape == (40, 16)
    assert len(built.network.bert.encoder.layer) == 2
    wider = Hf(40, False, False, config=str(tmp_path), hidden_size=32, num_blocks=3)
    assert wider.decoder.weight.shape == (40, 32)
    assert len(wider.network.bert.encoder.layer) == 3


def test_a_causal_network_of_a_folder_may_read_in_both_directions(
    tmp_path: Path, ids: Tensor
) -> None:
    source = saved(tmp_path, "GPT2LMHeadModel")
    built = network(str(tmp_path), pretrained=True)
    weights = dict(built.network.named_parameters())
    for name, parameter in source.named_parameters():
        assert torch.equal(parameter, weights[name])
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % STATES
    assert not torch.isclose(built(ids, None), built(changed, None)).all(-1).any()


@pytest.mark.parametrize(
    ("rows", "note"),
    [(STATES - 3, "states 16 to 18 are new"), (STATES + 2, "states 19 to 20 are left out")],
)
@pytest.mark.parametrize("kind", ["BertForMaskedLM", "RobertaForMaskedLM", "GPT2LMHeadModel"])
def test_the_vocabulary_of_weights_is_resized_and_that_is_said(
    kind: str, rows: int, note: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved(tmp_path, kind, num_states=rows)
    capsys.readouterr()
    built = network(str(tmp_path), pretrained=True)
    said = capsys.readouterr().err
    assert said.startswith(f"note: backbone hf: {kind} of {tmp_path}: ")
    assert note in said
    assert said.count("\n") == 1
    table, before = (n.get_input_embeddings().weight for n in (built.network, source))
    common = min(rows, STATES)
    assert table.shape == built.decoder.weight.shape == (STATES, 16)
    assert torch.equal(table[:common], before[:common])
    assert torch.equal(built.decoder.weight[:common], before[:common])
    assert table.abs().amax(-1).min() > 0


def test_what_the_weights_lack_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, "BertModel")
    capsys.readouterr()
    network(str(tmp_path), pretrained=True)
    said = capsys.readouterr().err
    assert "new: cls.predictions" in said
    assert "not used: pooler.dense.bias" in said


def test_pickled_weights_are_refused_unread(tmp_path: Path) -> None:
    saved(tmp_path, "BertForMaskedLM")
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match="in pytorch_model.bin, which can run code .* convert"):
        network(str(tmp_path), pretrained=True)


def test_a_folder_without_weights_or_without_a_config_says_so(tmp_path: Path) -> None:
    saved(tmp_path, "BertForMaskedLM")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="has no model.safetensors; leave --backbone.pretrained"):
        network(str(tmp_path), pretrained=True)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UsageError, match="has no config.json"):
        network(str(tmp_path))


def test_sizes_are_not_given_beside_weights(tmp_path: Path) -> None:
    saved(tmp_path, "BertForMaskedLM")
    with pytest.raises(UsageError, match="num_blocks is given, but pretrained weights"):
        network(str(tmp_path), pretrained=True, num_blocks=3)


def test_checking_reads_no_weights_but_notices_pickles(tmp_path: Path) -> None:
    saved(tmp_path, "BertForMaskedLM", num_states=10)
    with torch.device("meta"):
        built = network(str(tmp_path), pretrained=True)
    assert built.decoder.weight.is_meta
    assert built.decoder.weight.shape == (STATES, 16)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with torch.device("meta"), pytest.raises(UsageError, match="can run code"):
        network(str(tmp_path), pretrained=True)


def test_code_that_a_folder_brings_is_not_run(tmp_path: Path) -> None:
    saved(tmp_path, "BertForMaskedLM")
    path = tmp_path / "config.json"
    mapped = {"AutoConfig": "evil.Config", "AutoModelForMaskedLM": "evil.Network"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": mapped}))
    (tmp_path / "evil.py").write_text("raise SystemExit('evil')")
    assert network(str(tmp_path), pretrained=True).network.config.model_type == "bert"


# With the processes


class Repeats:
    """Sequences that repeat one token, of the first two of 5."""

    def __init__(self) -> None:
        tokens = torch.randint(2, (32, 1), generator=torch.Generator().manual_seed(0))
        self.ids = tokens.expand(32, 8)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Any) -> Batch:
        ids = self.ids[list(rows)]
        return Batch(ids, torch.ones_like(ids, dtype=torch.bool))

    def split(self, name: str) -> "Repeats":
        return self

    def spread(self, number: int) -> "Repeats":
        return self

    def num_characters(self) -> int:
        return self.ids.numel()


@pytest.mark.slow
@pytest.mark.parametrize("process", [Absorbing(5), Absorbing(5, time_conditioned=True), Uniform(5)])
@pytest.mark.parametrize("config", ["bert", "modernbert", "gpt2"])
def test_training_lowers_the_bound_and_samples_follow(config: str, process: Diffusion) -> None:
    torch.manual_seed(0)
    backbone = Hf(process.num_states, False, process.time_conditioned, config=config, **SMALL)
    model = Model(process, LogLinear(), Mean(), backbone)
    accelerator, data = Accelerator(cpu=True), Repeats()
    options = TrainOptions(steps=40, batch_size=16, warmup_steps=4, learning_rate=1e-2)
    trainer = Trainer(Nelbo(model), data, options, accelerator=accelerator, seed=1)

    def bound() -> float:
        found = evaluate(
            trainer.objective,
            data,
            accelerator,
            sequences=0,
            batch_size=32,
            protocol="exact",
            seed=1,
        )
        return found.nats_per_token

    before = bound()
    for _ in range(options.steps):
        trainer.update()
    assert bound() < 0.7 * before
    prompt = Prompt(torch.full((4, 8), 2), torch.arange(8).expand(4, 8) == 3)
    sample = Ancestral(steps=4)(model.eval(), (4, 8), derive_generator(0), prompt)
    assert sample.tokens.shape == (4, 8)
    assert sample.tokens.max() < 5
    assert (sample.tokens[:, 3] == 2).all()


def test_one_step_of_a_pretrained_network_moves_its_weights(tmp_path: Path) -> None:
    saved(tmp_path, "BertForMaskedLM", num_states=6)
    process = Absorbing(5, time_conditioned=True)
    backbone = Hf(6, False, True, config=str(tmp_path), pretrained=True)
    backbone.start(None, 5)
    model = Model(process, LogLinear(), Mean(), backbone)
    loss = Nelbo(model)(Repeats().batch(range(8)), Draws.derive(0, step=0, first=0, total=8))
    loss.total.backward()
    moved = {name for name, p in backbone.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"head.bias", "shift.mlp.2.weight"} <= moved
    assert "network.bert.encoder.layer.0.attention.self.query.weight" in moved


@pytest.mark.parametrize(
    ("config", "causal"), [*((name, False) for name in TYPES), ("llama", True), ("roberta", True)]
)
@torch.no_grad()
def test_documents_are_kept_apart_and_stand_as_if_alone(
    config: str, causal: bool, ids: Tensor
) -> None:
    built = randomised(network(config, causal=causal))
    apart = same_document((torch.arange(LENGTH) // 5).expand(3, -1))
    together = built.encode(ids, None, visibility=apart)
    for first in range(0, LENGTH, 5):
        alone = built.encode(ids[:, first : first + 5], None)
        torch.testing.assert_close(together[:, first : first + 5], alone, rtol=1e-4, atol=1e-4)


def test_a_network_that_cannot_be_told_what_to_see_is_refused(ids: Tensor) -> None:
    apart = same_document((torch.arange(LENGTH) // 5).expand(3, -1))
    with pytest.raises(UsageError, match="DebertaV2ForMaskedLM cannot be told what positions see"):
        network("deberta-v2").encode(ids, None, visibility=apart)
    narrow = network("modernbert", fields={"local_attention": 8})
    with pytest.raises(UsageError, match="sees 4 tokens at a time, .* which of 12 tokens"):
        narrow.encode(ids, None, visibility=apart)


def test_as_many_positions_are_needed_as_the_longest_text_has(ids: Tensor) -> None:
    short = network(max_length=6)
    places = torch.arange(LENGTH)[None] % 6
    twice = Visibility(lambda text, query, key: query // 6 == key // 6, places)
    assert short.encode(ids, None, visibility=twice).shape == (3, LENGTH, 16)
    with pytest.raises(UsageError, match="has positions for 6 tokens, but sequences have 7"):
        short.encode(ids, None, visibility=Visibility(twice.sees, places + 1))
