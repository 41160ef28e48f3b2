"""Distillation: its rounds, its frozen teacher, divergences by rows, and runs that can resume."""

import pytest
import torch
from accelerate import Accelerator
from published import DUO
from short_training import OPTIONS, Sequences, flat

from platform_core.cli import main
from platform_core.composition.options import TrainOptions
from platform_core.distillation import (
    Distillation,
    Divergence,
    ForwardKl,
    ReadAt,
    ReverseKl,
    Rounds,
    SquaredError,
    Teacher,
    TotalVariation,
)
from platform_core.draws import Draws
from platform_core.objective import Objective
from platform_core.process import Absorbing, Uniform, log_one_hot
from platform_core.runtime.checkpoint import Checkpoint
from platform_core.schedule import LogLinear
from platform_core.testing.toy import TinyNetwork, model
from platform_core.training.trainer import Trainer
from platform_core.types import Hidden, Inputs, Noise
from platform_duo.objective import DiscreteConsistency, UniformNelbo
from platform_mdlm.objective import MaskedNelbo, Sdtt
from platform_mdlm.parameterization import Subs

DIVERGENCES = [ReverseKl(), ForwardKl(), SquaredError(), TotalVariation()]
each_divergence = pytest.mark.parametrize("divergence", DIVERGENCES, ids=lambda d: type(d).__name__)


class Forgetful(TinyNetwork):
    """A network with dropout."""

    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        """Half of the features."""
        return torch.nn.functional.dropout(super().encode(inputs, sigma), training=self.training)


def sdtt(**options) -> Sdtt:
    one = model(Absorbing(5), Forgetful(6), LogLinear(), Subs())
    return Sdtt(one, **options)


def discrete_consistency(**options) -> DiscreteConsistency:
    return DiscreteConsistency(model(Uniform(5), Forgetful(5), LogLinear()), **options)


STUDENTS = {
    "sdtt": (sdtt, MaskedNelbo),
    "discrete-consistency": (discrete_consistency, UniformNelbo),
}
each_student = pytest.mark.parametrize("student", STUDENTS)


def build(student: str, **options) -> Distillation:
    torch.manual_seed(0)
    return STUDENTS[student][0](**options)


def trainer(student: str, options: TrainOptions = OPTIONS, **of_objective) -> Trainer:
    objective = build(student, round_steps=3, rounds=2, first_dt=0.1, **of_objective)
    return Trainer(objective, Sequences(), options, accelerator=Accelerator(cpu=True), seed=3)


def taught(trained: Trainer) -> torch.Tensor:
    parameters = trained.objective.teacher.backbone.parameters()
    return torch.cat([parameter.flatten() for parameter in parameters]).clone()


def average(trained: Trainer) -> torch.Tensor:
    return torch.cat([shadow.flatten() for shadow in trained.ema.shadow.values()])


def draws(step: int = 0, total: int = 4) -> Draws:
    return Draws.derive("test", step=step, first=0, total=total)


@pytest.mark.parametrize(
    ("divergence", "published"), [(ReverseKl(), "kl_bwd"), (ForwardKl(), "kl_fwd")]
)
def test_divergences_are_the_reference_s(divergence: Divergence, published: str):
    case = DUO.tensors("l.losses")
    student, teacher = case["student_log_p"], case["teacher_log_p"]
    single, double = (case[f"output/{published}_float{bits}"] for bits in (32, 64))
    torch.testing.assert_close(divergence(student, teacher), single, **DUO.tolerance("l.losses"))
    found = divergence(student.double(), teacher.double())
    torch.testing.assert_close(found, double, rtol=1e-12, atol=1e-12)


def test_distances_are_of_probabilities():
    student, teacher = (torch.tensor(p).log() for p in ([0.5, 0.3, 0.2], [0.2, 0.4, 0.4]))
    assert SquaredError()(student, teacher).item() == pytest.approx(0.09 + 0.01 + 0.04)
    assert TotalVariation()(student, teacher).item() == pytest.approx(0.3)


@each_divergence
def test_a_divergence_is_0_where_laws_are_equal_and_finite_where_they_cannot_meet(divergence):
    generator = torch.Generator().manual_seed(0)
    laws = torch.randn(2, 9, 5, generator=generator).log_softmax(-1)
    assert (divergence(laws[0], laws[0]) == 0).all()
    assert (divergence(*laws) > 0).all()
    certain = log_one_hot(torch.arange(5), 5)
    assert (divergence(certain, certain) == 0).all()
    apart = certain.clone().requires_grad_()
    value = divergence(apart, certain.roll(1, 0)).sum()
    value.backward()
    assert value.isfinite()
    assert apart.grad.isfinite().all()


def test_the_step_over_time_is_the_reference_s():
    case = DUO.tensors("l.dt")
    rounds = Rounds(first_dt=1 / 512, round_steps=10_000, rounds=6)
    assert [rounds.dt(step) for step in case["step"].tolist()] == case["output/dt"].tolist()


def test_a_round_begins_with_its_first_update_and_the_last_goes_on():
    rounds = Rounds(first_dt=0.25, round_steps=3, rounds=2)
    assert [step for step in range(20) if rounds.begins(step)] == [0, 3]
    assert [rounds.dt(step) for step in (0, 2, 3, 19)] == [0.25, 0.25, 0.5, 0.5]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0.1, 0, 2), "round_steps is 0 and rounds 2; both must be at least 1"),
        ((0.1, 3, 0), "round_steps is 3 and rounds 0"),
        ((0.0, 3, 2), "first_dt is 0; it must be above 0"),
        ((-0.1, 3, 2), "first_dt is -0.1"),
        ((0.3, 3, 3), "first_dt is 0.3; .* at most 1 after it has doubled 2 times"),
    ],
)
def test_rounds_that_cannot_be_are_refused(values: tuple[float, int, int], said: str):
    with pytest.raises(ValueError, match=said):
        Rounds(*values)


@each_student
@pytest.mark.parametrize("teacher", ["student", "ema"])
def test_the_teacher_is_renewed_as_a_round_begins_and_not_within(student: str, teacher: str):
    trained = trainer(student, teacher=teacher)
    source = {"student": flat, "ema": average}[teacher]
    renewed = []
    assert taught(trained).equal(flat(trained))
    for step in range(1, 9):
        before = taught(trained)
        trained.update()
        assert not flat(trained).equal(average(trained))
        if not taught(trained).equal(before):
            renewed.append(step)
            assert taught(trained).equal(source(trained))
    assert renewed == [3]


@each_student
def test_weights_that_are_loaded_before_training_are_the_teacher_s(student: str):
    objective = build(student)
    with torch.no_grad():
        objective.model.backbone.mixing.weight.fill_(0.5)
    assert not objective.teacher.backbone.mixing.weight.eq(0.5).any()
    Trainer(objective, Sequences(), OPTIONS, accelerator=Accelerator(cpu=True), seed=3)
    assert objective.teacher.backbone.mixing.weight.eq(0.5).all()


@each_student
def test_the_teacher_drops_nothing_and_does_not_learn(student: str):
    trained = trainer(student)
    objective = trained.objective
    trained.update()
    assert objective.model.backbone.training
    assert not any(module.training for module in objective.teacher.modules())
    assert not any(parameter.requires_grad for parameter in objective.teacher.parameters())
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
    assert not any(name.startswith("teacher") for name in trained.trained)
    tokens, level = torch.zeros(1, 6, dtype=torch.long), torch.full((1, 1), 0.5).double()
    first, second = (objective.teacher_reads.encode(tokens, level) for _ in range(2))
    assert first.equal(second)
    first, second = (objective.student_reads.encode(tokens, level) for _ in range(2))
    assert not first.equal(second)


@pytest.mark.slow
@each_student
@pytest.mark.parametrize("teacher", ["student", "ema"])
@pytest.mark.parametrize("killed", [2, 3, 4])
def test_a_restored_trainer_goes_on_bit_for_bit(student: str, teacher: str, killed: int):
    whole = trainer(student, teacher=teacher)
    for _ in range(killed):
        whole.update()
    saved = whole.checkpoint()
    assert {name.partition(".")[0] for name in saved.tensors["objective"]} == {"teacher"}
    kept = {
        group: {name: tensor.detach().clone() for name, tensor in group_tensors.items()}
        for group, group_tensors in saved.tensors.items()
    }
    restored = trainer(student, teacher=teacher)
    restored.restore(Checkpoint(kept, dict(saved.state)), source="memory")
    assert taught(whole).equal(taught(restored))
    for _ in range(6 - killed):
        assert whole.update() == restored.update()
    for weights in (flat, taught, average):
        assert weights(whole).equal(weights(restored))


@each_student
def test_a_student_that_is_its_teacher_and_steps_over_hardly_any_time_has_hardly_any_loss(
    student: str,
):
    objective = build(student, first_dt=1e-12, rounds=1).eval()
    batch = Sequences().batch(list(range(20)))
    near = objective(batch, draws(total=20))
    assert near.total.item() == pytest.approx(0, abs=1e-5)
    far = build(student, first_dt=0.4, rounds=1).eval()(batch, draws(total=20))
    assert far.total.item() > 1e-3
    assert near.per_token.shape == batch.mask.shape
    assert (far.per_token[~batch.mask] == 0).all()


@each_student
@each_divergence
def test_rows_are_the_dense_loss_with_its_gradients(student: str, divergence: Divergence):
    objective = build(student).double()
    objective.divergence = divergence
    process, parameterization = objective.model.process, objective.model.parameterization
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in objective.teacher.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    hidden, seen = torch.randn(2, 3, 7, 8, generator=generator, dtype=torch.float64)
    # Under masks both read masks, under uniform noise two texts.
    x_t, x_s = torch.randint(process.num_states, (2, 3, 7), generator=generator)
    student_read, teacher_read = (
        ReadAt.of(tokens, torch.tensor([[0.3], [0.5], [0.7]]) + extra)
        for tokens, extra in ((x_t, 0.0), (x_s, 0.1))
    )
    counted = torch.rand(3, 7, generator=generator) < 0.6
    weights = list(objective.model.backbone.decoder.parameters())
    found = []
    for dense in (False, True):
        leaf = hidden.clone().requires_grad_()
        if dense:
            decoders = (objective.model.backbone.decoder, objective.teacher.backbone.decoder)
            laws = [
                parameterization.log_x0(decoder(features), tokens, level, process)
                for decoder, features, (tokens, level) in zip(
                    decoders, (leaf, seen), (student_read, teacher_read), strict=True
                )
            ]
            per_token = torch.where(counted, divergence(*laws), 0.0)
            total = per_token.sum()
        else:
            total, per_token, _ = objective.matched(leaf, student_read, seen, teacher_read, counted)
        found.append((total, per_token.float(), *torch.autograd.grad(total, (leaf, *weights))))
    for rows, dense in zip(*found, strict=True):
        torch.testing.assert_close(rows, dense, rtol=1e-6, atol=1e-9)


@each_student
def test_the_bound_is_the_ordinary_one(student: str):
    objective = build(student).eval()
    ordinary = STUDENTS[student][1](objective.model)
    batch = Sequences().batch(list(range(20)))
    for protocol in ("exact", "published"):
        found, expected = (
            o.bound(batch, draws(total=20), protocol).per_token for o in (objective, ordinary)
        )
        assert found.equal(expected)


@each_student
def test_without_memory_a_teacher_is_made_all_the_same(student: str):
    with torch.device("meta"):
        objective = build(student)
    assert all(parameter.is_meta for parameter in objective.teacher.parameters())


def test_a_teacher_is_a_copy():
    one = model(Absorbing(5), Forgetful(6))
    teacher = Teacher(one)
    with torch.no_grad():
        one.backbone.mixing.weight.zero_()
    assert teacher.backbone.mixing.weight.abs().sum() > 0
    assert one.backbone.training
    assert all(parameter.requires_grad for parameter in one.parameters())


@pytest.mark.parametrize("student", STUDENTS)
def test_a_student_without_a_teacher_is_refused_before_anything_starts(
    student: str,
    tmp_path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    process = {"sdtt": "mdlm"}.get(student, "duo")
    assert main(["run", f"--process={process}", f"--objective={student}"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert f"objective {student} trains a student from a trained teacher" in printed
    assert "--init RUN" in printed
    assert not list(tmp_path.iterdir())


def test_other_objectives_start_from_anything():
    assert not Objective.starts_from_trained
    assert Distillation.starts_from_trained
