"""The chunked losses against naive ones that hold all logits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fcot_vl.train.losses import answer_cross_entropy, answer_rows, realign_loss


def naive_realign_loss(teacher, student, head, labels, kl_weight=1.0, ce_weight=1.0, temperature=1.0):
    """The definition: full logits, torch's own KL and cross-entropy; the teacher is a constant."""
    teacher_logits, student_logits = (teacher @ head.T).detach(), student @ head.T
    kl = temperature**2 * F.kl_div(
        F.log_softmax(student_logits / temperature, dim=-1),
        F.log_softmax(teacher_logits / temperature, dim=-1),
        log_target=True,
        reduction="batchmean",
    )
    ce = F.cross_entropy(student_logits, labels)
    return kl_weight * kl + ce_weight * ce, kl, ce


def tensors(
    rows: int, size: int = 8, vocabulary: int = 37, seed: int = 0, dtype: torch.dtype = torch.float64
):
    generator = torch.Generator().manual_seed(seed)
    teacher, student = (torch.randn(rows, size, generator=generator, dtype=dtype) for _ in range(2))
    head = torch.randn(vocabulary, size, generator=generator, dtype=dtype)
    labels = torch.randint(vocabulary, (rows,), generator=generator)
    return teacher, student.requires_grad_(), head, labels


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 20),
    chunk=st.integers(1, 25),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    weights=st.tuples(st.floats(0, 3), st.floats(0, 3)),
    head_learns=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_realign_loss_and_its_gradients_equal_the_naive_ones(
    rows, chunk, temperature, weights, head_learns, seed
):
    teacher, student, head, labels = tensors(rows, seed=seed)
    head.requires_grad_(head_learns)
    ours = realign_loss(teacher, student, head, labels, *weights, temperature, chunk)
    naive = naive_realign_loss(teacher, student, head, labels, *weights, temperature)
    torch.testing.assert_close(ours[:3], naive, rtol=1e-9, atol=1e-9)
    inputs = [student, head] if head_learns else [student]
    torch.testing.assert_close(
        torch.autograd.grad(ours.loss, inputs), torch.autograd.grad(naive[0], inputs), rtol=1e-9, atol=1e-9
    )


def test_realign_loss_in_float32_is_within_1e_6_of_the_naive_one():
    teacher, student, head, labels = tensors(50, vocabulary=1000, dtype=torch.float32)
    head = head / 3
    ours = realign_loss(teacher, student, head, labels, chunk=16)
    naive = naive_realign_loss(*(t.double() for t in (teacher, student, head)), labels)
    for mine, reference in zip(ours[:3], naive, strict=True):
        torch.testing.assert_close(mine.double(), reference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradcheck(temperature):
    teacher, student, head, labels = tensors(5, size=3, vocabulary=7)
    assert torch.autograd.gradcheck(
        lambda s: realign_loss(teacher, s, head, labels, 0.7, 1.3, temperature, chunk=2).loss, (student,)
    )
    head.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s, h: answer_cross_entropy(s, h, labels, chunk=2).loss, (student, head)
    )


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 9), seed=st.integers(0, 1000), temperature=st.sampled_from([0.7, 1.0, 4.0]))
def test_kl_is_never_negative_and_zero_for_equal_students(rows, seed, temperature):
    teacher, student, head, labels = tensors(rows, seed=seed)
    assert realign_loss(teacher, student, head, labels, temperature=temperature).kl > 0
    equal = realign_loss(teacher, teacher.clone().requires_grad_(), head, labels, temperature=temperature)
    assert equal.kl == 0 and equal.agreement == 1


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 12), chunk=st.integers(1, 15), seed=st.integers(0, 1000))
def test_cross_entropy_equals_torch(rows, chunk, seed):
    _, hidden, head, labels = tensors(rows, seed=seed)
    head.requires_grad_()
    ours, naive = (
        answer_cross_entropy(hidden, head, labels, chunk).loss,
        F.cross_entropy(hidden @ head.T, labels),
    )
    torch.testing.assert_close(ours, naive)
    torch.testing.assert_close(
        torch.autograd.grad(ours, [hidden, head]),
        torch.autograd.grad(naive, [hidden, head]),
        rtol=1e-9,
        atol=1e-9,
    )


def test_kl_runs_from_teacher_to_student():
    """Forward KL punishes a student that gives no mass to what the teacher finds likely; reverse KL would not."""
    head = torch.eye(3, dtype=torch.float64)
    teacher = torch.tensor([[5.0, 5.0, -20.0]], dtype=torch.float64)
    narrow = torch.tensor([[5.0, -20.0, -20.0]], dtype=torch.float64)
    labels = torch.tensor([0])
    assert (
        realign_loss(teacher, narrow, head, labels).kl > 10 * realign_loss(narrow, teacher, head, labels).kl
    )


def test_accumulated_batches_add_up_to_the_mean_of_the_whole():
    teacher, student, head, labels = tensors(10)
    whole = realign_loss(teacher, student, head, labels)
    parts = [
        realign_loss(teacher[s], student[s], head, labels[s], denominator=10)
        for s in (slice(3), slice(3, 10))
    ]
    torch.testing.assert_close(whole.loss, parts[0].loss + parts[1].loss)
    whole_ce = answer_cross_entropy(student, head, labels).loss
    parts_ce = [
        answer_cross_entropy(student[s], head, labels[s], denominator=10).loss
        for s in (slice(3), slice(3, 10))
    ]
    torch.testing.assert_close(whole_ce, sum(parts_ce))


def test_a_batch_without_answers_has_a_loss_of_zero_and_no_gradient():
    teacher, student, head, labels = tensors(0)
    loss = (
        realign_loss(teacher, student, head, labels).loss + answer_cross_entropy(student, head, labels).loss
    )
    loss.backward()
    assert loss == 0 and student.grad.shape == (0, 8)


def test_agreement_counts_equal_first_ranks():
    head, labels = torch.eye(3), torch.zeros(2, dtype=torch.long)
    result = realign_loss(torch.eye(3)[[0, 1]], torch.eye(3)[[0, 2]], head, labels)
    assert result.agreement == 0.5


def test_half_precision_hidden_states_are_summed_in_float32():
    teacher, student, head, labels = (t.detach() for t in tensors(40, dtype=torch.float32))
    halves = [t.bfloat16() for t in (teacher, student, head)]
    halves[1].requires_grad_()
    ours = realign_loss(*halves, labels, chunk=7)
    assert ours.loss.dtype == torch.float32
    ours.loss.backward()
    assert halves[1].grad.dtype == torch.bfloat16
    naive = naive_realign_loss(*(t.float() for t in halves), labels)
    torch.testing.assert_close(ours.loss, naive[0], rtol=1e-2, atol=1e-2)


def test_no_gradient_is_made_when_none_is_asked_for():
    teacher, student, head, labels = tensors(4)
    with torch.no_grad():
        assert not realign_loss(teacher, student, head, labels).loss.requires_grad
    loss = realign_loss(teacher, student, head, labels).loss
    loss.backward()
    assert head.grad is None and teacher.grad is None


def test_answer_rows_are_one_before_the_labels():
    hidden = torch.arange(10.0).view(2, 5, 1)
    labels = torch.tensor([[-100, -100, 7, 8, -100], [-100, 9, -100, -100, -100]])
    rows, picked = answer_rows(hidden, labels)
    assert rows.flatten().tolist() == [1, 2, 5]
    assert picked.tolist() == [7, 8, 9]


def test_mistakes_are_named():
    teacher, student, head, labels = tensors(4)
    with pytest.raises(ValueError, match="pair up"):
        realign_loss(teacher[:3], student, head, labels)
    with pytest.raises(ValueError, match="temperature"):
        realign_loss(teacher, student, head, labels, temperature=0.0)
    with pytest.raises(ValueError, match="expected hidden states"):
        answer_cross_entropy(student, head, labels[:2])
