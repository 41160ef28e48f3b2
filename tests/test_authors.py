"""What `platform check` offers to authors: options of parts, and laws that parts do not claim."""

from typing import NamedTuple

import pytest
import torch
from author_parts import Neighbours, Told

from platform_core.backbone import Sighted
from platform_core.categorical import KeepAll
from platform_core.cli import main
from platform_core.cli.check import verdict_on
from platform_core.composition.compose import PLACEHOLDER_VOCABULARY, compose
from platform_core.composition.options import SampleOptions
from platform_core.errors import UsageError
from platform_core.guidance import guided
from platform_core.model import Denoiser, Model
from platform_core.objective import Nelbo
from platform_core.parameterization import Mean, Parameterization, PredictsClean
from platform_core.process import Absorbing, Diffusion, Thinned
from platform_core.registry.blame import mistake_of_the_user
from platform_core.registry.loading import find_plugins
from platform_core.schedule import LogLinear
from platform_core.testing.check import cases, named
from platform_core.testing.given import given
from platform_core.testing.law import Inapplicable
from platform_core.testing.partners import exact_backbone
from platform_core.testing.stubs import Small
from platform_core.testing.toy import (
    ExactDenoiser,
    exact_model,
    integrated_bound,
    seeded,
    two_token_law,
)
from platform_core.visibility import same_document

PLUGINS = find_plugins({"PLATFORM_PLUGINS": "author_parts,platform_core.testing.stubs"})
LOADED = ["-p", "author_parts", "-p", "platform_core.testing.stubs"]
SMALL = ["--train.steps=2", "--train.warmup_steps=0", "--train.batch_size=4", "--data.length=8"]
SMALL += ["--evaluate.sequences=4", "--sample.number=1", "--track.to=none"]


def verdicts(part: str, *laws: str, options: tuple[str, ...] = ()):
    parts = named([part], PLUGINS)
    found = cases(parts, PLUGINS, given(options, parts, PLUGINS))
    return {case.law.id: (case, case.verdict()) for case in found if case.law.id in laws}


def test_an_option_of_the_part_reaches_every_law_that_makes_it():
    laws = ("corrupt-draws", "signal", "config-round-trip")
    without = verdicts("process:blocks", *laws)
    assert without["corrupt-draws"][1].outcome == "broken"
    assert "2 tokens are no blocks of 4" in without["corrupt-draws"][1].says
    with_option = verdicts("process:blocks", *laws, options=("--process.block_size=1",))
    assert {verdict.outcome for _, verdict in with_option.values()} == {"passed"}


def test_an_option_reaches_a_part_that_is_only_a_partner():
    parts = named(["author_parts"], PLUGINS)
    found = given(["--process.block_size=1"], parts, PLUGINS)
    assert found == {("process", "blocks"): {"block_size": 1}}
    subject = next(iter(cases(named(["greedy"], PLUGINS), PLUGINS, found))).subject
    from platform_core.testing.partners import candidates

    (blocks,) = [it for it in candidates(subject, "process") if it.name == "blocks"]
    assert blocks.make(vocab_size=3).block_size == 1


def test_an_option_that_selects_a_form_leaves_only_that_form():
    parts = named(["process:d3pm"], PLUGINS)
    found = cases(parts, PLUGINS, given(["--process.states=uniform"], parts, PLUGINS))
    assert {case.subject.form for case in found} == {"states uniform"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--process.block_sise", "1"], "did you mean"),
        (["--process.block_size", "one"], "process.block_size is one; expected"),
        (["--process.vocab_size", "9"], "computed from the other parts"),
        (["--process.block_size"], "needs a value"),
        (["--backbone.hidden_size", "1"], "no backbone is among the parts to check"),
        (["--data.length", "1"], "unrecognized arguments: --data.length"),
    ],
)
def test_an_option_that_no_part_has_is_refused(words, message, capsys):
    assert main([*LOADED, "check", "process:blocks", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_law_that_is_not_claimed_is_not_broken():
    found = verdicts("greedy", "same-seed-same-sample", "keeps-the-prompt", "unclaimed-laws")
    assert found["keeps-the-prompt"][1].outcome == "passed"
    assert found["unclaimed-laws"][1].outcome == "passed"
    case, verdict = found["same-seed-same-sample"]
    assert verdict.outcome == "unclaimed"
    assert verdict.says.startswith("no draw is random; with ")
    said = verdict_on([(case, verdict)], verbose=False)
    assert ": 0 passed, 0 broken, 1 not claimed, 0 not applicable" in said
    assert "\n  not claimed same-seed-same-sample: no draw is random; " in said


def test_a_law_that_is_not_claimed_but_holds_is_said():
    found = verdicts("modest", "keeps-the-prompt", "same-seed-same-sample")
    case, verdict = found["keeps-the-prompt"]
    assert verdict.outcome == "passed"
    assert verdict.says.startswith("it is not claimed, but it holds")
    said = verdict_on([(case, verdict)], verbose=False)
    assert "\n  not claimed, but holds: keeps-the-prompt" in said
    assert found["same-seed-same-sample"][1].outcome == "broken", "this one it does claim"


def test_options_of_a_role_without_parts_are_refused_before_laws_are_tested():
    with pytest.raises(UsageError, match="no schedule is among the parts"):
        given(["--schedule.eps=1"], named(["greedy"], PLUGINS), PLUGINS)


def test_constructors_are_told_of_the_text():
    words = ["--process=first", "--sampler=told", "--data.length=9", "--data.label=century"]
    composition, _ = compose(words, PLUGINS, prog="check", environ={})

    class Letters:
        vocab_size, pad_id = 5, 3

    built = composition.build(5, 2, tokenizer=Letters(), label_names=("old", "new"))
    told = built.sampler
    assert (told.length, told.pad_id, told.label_names) == (9, 3, ("old", "new"))
    assert isinstance(told.tokenizer, Letters)
    untold = composition.build(PLACEHOLDER_VOCABULARY, 2).sampler
    assert (untold.tokenizer, untold.pad_id) == (None, None)
    assert untold.label_names == ("label 0", "label 1")
    laws = ("keeps-the-prompt", "tokens-of-the-vocabulary", "counts-evaluations")
    outcomes = [verdict.outcome for _, verdict in verdicts("sampler:told", *laws).values()]
    assert outcomes == ["passed"] * 3


def test_what_is_known_of_the_text_is_no_option(capsys):
    assert main([*LOADED, "run", "--sampler=told", "--sampler.pad_id=1", "--print_config"]) == 2
    assert "sampler.pad_id is computed from the other parts" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_tells_its_parts_of_the_text_and_reports_what_they_refuse(tmp_path, capsys):
    run = ["run", "--process=first", "--sampler=told", *SMALL, f"--output={tmp_path / 'run'}"]
    assert main([*LOADED, *run]) == 0
    capsys.readouterr()
    assert main([*LOADED, "sample", str(tmp_path / "run"), "--sample.length=9"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "platform sample: error: sampler told: a text of 9 tokens is longer than 8"
    with pytest.raises(ValueError, match="a defect"):
        main([*LOADED, "sample", str(tmp_path / "run"), "--sample.length=3"])


def test_only_what_a_part_raises_itself_is_a_mistake_of_the_user(monkeypatch):
    monkeypatch.setenv("PLATFORM_PLUGINS", "author_parts")
    sampler = Told(4, None, None, (), 3)
    with pytest.raises(ValueError, match="longer than 4") as refused:
        sampler(None, (1, 5), None)
    assert mistake_of_the_user(refused.value) == (
        "sampler told: a text of 5 tokens is longer than 4"
    )
    with pytest.raises(ValueError, match="a defect") as defect:
        sampler(None, (1, 3), None)
    assert mistake_of_the_user(defect.value) is None
    with pytest.raises(ValueError, match="mine") as elsewhere:
        raise ValueError("mine")
    assert mistake_of_the_user(elsewhere.value) is None


def test_the_bound_of_d3pm_requires_no_more_of_a_process_than_a_diffusion():
    objective = PLUGINS.load("objective", "discrete-nelbo")
    assert objective.requires == {"process": Diffusion, "parameterization": PredictsClean}


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0])
def test_a_guided_backbone_keeps_documents_apart_if_its_own_does(weight):
    network = Small(5, causal=False, time_conditioned=False, num_labels=2)
    network.evaluations = 3
    model = Model(Absorbing(4), LogLinear(), Mean(), network)
    options = SampleOptions(label="new", guidance=weight)
    backbone = guided(model, ("old", "new"), options).backbone
    assert isinstance(backbone, Sighted)
    assert backbone.evaluations == (3 if weight in (0, 1) else 6)
    x = torch.tensor([[0, 1, 2, 3]])
    apart = same_document(torch.tensor([[0, 0, 1, 1]]))
    one = backbone.encode(x, None, visibility=apart)
    other = backbone.encode(torch.tensor([[0, 1, 3, 2]]), None, visibility=apart)
    torch.testing.assert_close(one[:, :2], other[:, :2])
    assert not torch.equal(backbone.encode(x, None), one)


def test_features_take_the_place_of_a_call_of_the_network():
    network = Small(5, causal=False, time_conditioned=False)
    denoiser = Denoiser(Model(Absorbing(4), LogLinear(), Mean(), network))
    x_t = torch.full((2, 6), 4)
    alpha = torch.full((2, 1), 0.3, dtype=torch.float64)
    thinned = Thinned(x_t == 4, torch.ones_like(alpha))

    def draw(features):
        return denoiser.draw_open(
            x_t, thinned, alpha, truncation=KeepAll(), generator=seeded(), features=features
        )

    drawn = draw(None)
    assert denoiser.calls == 1
    features = denoiser.encode(x_t, alpha)
    assert torch.equal(draw(features), drawn)
    assert denoiser.calls == 2, "the features were computed once, here"


def test_a_process_that_is_no_mixture_keeps_the_laws_of_all_diffusions():
    found = cases(named(["process:neighbours"], PLUGINS), PLUGINS)
    judged = {case.law.id: case.verdict() for case in found if case.law.role and not case.law.heavy}
    assert {law: it.says for law, it in judged.items() if it.outcome == "broken"} == {}
    others = {law: it.says for law, it in judged.items() if it.outcome == "inapplicable"}
    of_mixtures = ("signal", "noise-is-what-is-not-kept")
    assert others == dict.fromkeys(of_mixtures, "it is not a Mixing")


def test_the_bound_of_a_process_with_a_rate_for_each_origin_is_tight():
    law = two_token_law()
    bound = integrated_bound(Nelbo(exact_model(law, Neighbours)), law.sequences())
    torch.testing.assert_close(bound, -law.log_prob(law.sequences()), atol=1e-6, rtol=0)


def test_toys_read_a_level_for_each_position():
    law, process = two_token_law(), Neighbours(3)
    x_t = law.sequences()
    even = torch.full((len(x_t), 1), 0.4, dtype=torch.float64)
    torch.testing.assert_close(
        law.log_x0(x_t, even.expand(-1, 2) * torch.ones(1, 2), process),
        law.log_x0(x_t, even, process),
    )
    uneven = torch.tensor([[1.0, 0.4]], dtype=torch.float64).expand(len(x_t), 2)
    given_first = law.probs / law.probs.sum(1, keepdim=True)
    found = law.log_x0(x_t, uneven, process)[:, 1].exp()
    torch.testing.assert_close(found, given_first[x_t[:, 0]])


def test_a_part_may_know_its_oracle_itself():
    law = two_token_law()

    class Own(Parameterization):
        def oracle(self, law, process, parameterization):
            return ExactDenoiser(law, process)

    assert isinstance(exact_backbone(law, Neighbours(3), Own()), ExactDenoiser)
    with pytest.raises(Inapplicable):
        exact_backbone(law, Neighbours(3), Parameterization())


class Shifted(NamedTuple):
    """Inputs of a kind of one's own: tokens and what is added to their embeddings."""

    ids: torch.Tensor
    shift: torch.Tensor


class ReadsShifted(Small):
    def _embedded(self, inputs):
        if isinstance(inputs, Shifted):
            return super()._embedded(inputs.ids) + inputs.shift
        return super()._embedded(inputs)


def test_a_network_may_read_inputs_of_its_own_kind():
    shifted = Shifted(torch.tensor([[0, 1, 2]]), torch.ones(()))
    alpha = torch.full((1, 1), 0.5, dtype=torch.float64)
    own = ReadsShifted(5, causal=False, time_conditioned=False)
    denoiser = Denoiser(Model(Absorbing(4), LogLinear(), Mean(), own))
    assert not torch.equal(denoiser.encode(shifted, alpha), denoiser.encode(shifted.ids, alpha))
    other = Small(5, causal=False, time_conditioned=False)
    with pytest.raises(TypeError, match="does not read inputs of the kind Shifted"):
        other.encode(shifted, None)
