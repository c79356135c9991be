"""Losses of both training stages on answer tokens, computed from the logits chunk by chunk.

`realign.py` calls `realign_loss` (teacher and student hidden states of the answer positions), and `post_train.py` calls
`answer_cross_entropy`. Full `[answer tokens, vocabulary]` logits are never stored. Each chunk of rows is projected, and
its share of the loss and of the gradient is computed in the same pass. Its buffers are then reused for the next chunk.
Nothing is computed twice.

Shape suffixes: N answer tokens, C rows of one chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 1 << 23  # logits of one chunk: 32 MiB per buffer in float32, four to six buffers


class RealignLoss(NamedTuple):
    """Result of `realign_loss`; only `loss` carries a gradient."""

    loss: Tensor
    """Scalar, kl_weight · kl + ce_weight · ce."""
    kl: Tensor
    """Scalar, KL(teacher ‖ student) in nats per answer token."""
    ce: Tensor
    """Scalar, cross-entropy in nats per answer token."""
    agreement: Tensor
    """Scalar, share of answer tokens where student and teacher rank the same token first."""


class AnswerLoss(NamedTuple):
    """Result of `answer_cross_entropy`; only `loss` carries a gradient."""

    loss: Tensor
    """Scalar, nats per answer token."""
    tokens: Tensor
    """`[N]`, nats of each answer token."""


def realign_loss(
    teacher_hidden: Tensor,
    student_hidden: Tensor,
    lm_head_weight: Tensor,
    labels: Tensor,
    kl_weight: float = 1.0,
    ce_weight: float = 1.0,
    temperature: float = 1.0,
    chunk: int | None = None,
    denominator: Tensor | float | None = None,
) -> RealignLoss:
    """Compute the forward KL from the teacher's next-token distribution plus the cross-entropy (paper, Sec. 3.2).

    Both terms are averaged over the answer tokens. The KL term compares the distributions at `temperature` and is
    multiplied by `temperature` squared, so that its gradient keeps its size (Hinton et al. 2015). The cross-entropy is
    taken at temperature 1.

    Args:
        teacher_hidden: `[N, D]`, last hidden states of the teacher that predict the answer tokens, without gradient.
        student_hidden: `[N, D]`, last hidden states of the student for the same answer tokens, row by row.
        lm_head_weight: `[V, D]`, shared head. It gets a gradient only if it requires one.
        labels: `[N]`, answer tokens.
        kl_weight: Weight of the KL term.
        ce_weight: Weight of the cross-entropy.
        temperature: Temperature of the KL term, above 0.
        chunk: Number of rows projected at a time. Default: as many as fit `CHUNK_ELEMENTS` logits.
        denominator: Divisor of the sums, N by default. When gradients are accumulated, it is the number of answer
            tokens of the whole accumulated batch.

    Raises:
        ValueError: If the numbers of rows differ, or the temperature is not positive.
    """
    _check_rows(student_hidden, lm_head_weight, labels)
    if teacher_hidden.shape != student_hidden.shape:
        raise ValueError(
            f"teacher and student hidden states must pair up row for row, got {tuple(teacher_hidden.shape)} and "
            f"{tuple(student_hidden.shape)}: check that both sequences mark the same answer tokens"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    return RealignLoss(
        *_RealignLoss.apply(
            student_hidden,
            lm_head_weight,
            teacher_hidden.detach(),
            labels,
            (kl_weight, ce_weight, temperature),
            chunk or _rows_per_chunk(lm_head_weight.shape[0]),
            denominator,
            torch.is_grad_enabled(),
        )
    )


def answer_cross_entropy(
    hidden: Tensor,
    lm_head_weight: Tensor,
    labels: Tensor,
    chunk: int | None = None,
    denominator: Tensor | float | None = None,
) -> AnswerLoss:
    """Compute the mean cross-entropy of the answer tokens, with exact gradients for hidden states and head.

    Args:
        hidden: `[N, D]`, last hidden states that predict the answer tokens.
        lm_head_weight: `[V, D]`, head.
        labels: `[N]`, answer tokens.
        chunk: Number of rows projected at a time. Default: as many as fit `CHUNK_ELEMENTS` logits.
        denominator: Divisor of the sum, N by default.

    Raises:
        ValueError: If the numbers of rows differ.
    """
    _check_rows(hidden, lm_head_weight, labels)
    return AnswerLoss(
        *_AnswerCrossEntropy.apply(
            hidden,
            lm_head_weight,
            labels,
            chunk or _rows_per_chunk(lm_head_weight.shape[0]),
            denominator,
            torch.is_grad_enabled(),
        )
    )


def answer_rows(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Select the hidden states that predict an answer token, and those tokens.

    Args:
        hidden: `[batch, length, D]`.
        labels: `[batch, length]`, aligned with the input ids, -100 at positions that are not learned.

    Returns:
        `[N, D]` hidden states one position before each label, and the `[N]` labels, in the order of the batch.
    """
    is_answer = labels[:, 1:] != -100
    return hidden[:, :-1][is_answer], labels[:, 1:][is_answer]


class _RealignLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student_ND: Tensor,
        head_VD: Tensor,
        teacher_ND: Tensor,
        labels_N: Tensor,
        weights: tuple[float, float, float],
        chunk: int,
        denominator: Tensor | float | None,
        grad_enabled: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        kl_weight, ce_weight, temperature = weights
        chunks = _Chunks(ctx, student_ND, head_VD, chunk, denominator, grad_enabled)
        kl, ce, agreed = (chunks.zero() for _ in range(3))
        teacher_logits, teacher_exp = chunks.buffer(), chunks.buffer()
        warm_student = chunks.buffer() if temperature != 1.0 else teacher_exp  # unused at 1
        for rows in chunks.rows():
            # a: teacher, b: student; both are shifted by their row maximum
            a_CV, a_exp_CV = chunks.project(teacher_ND[rows], teacher_logits), chunks.like(rows, teacher_exp)
            b_CV, b_exp_CV = chunks.project(student_ND[rows], chunks.logits), chunks.like(rows, chunks.exp)
            labels_C = labels_N[rows, None]
            a_top = _shift(a_CV)
            b_top = _shift(b_CV)
            agreed += (a_top == b_top).sum()
            b_sum = _exp_sum(b_CV, b_exp_CV)
            ce += (b_sum.log() - b_CV.gather(1, labels_C)).sum()
            if temperature == 1.0:
                a_sum = _exp_sum(a_CV, a_exp_CV)
                kl += _kl_sum(a_CV, a_exp_CV, a_sum, b_CV, b_sum)
                if chunks.wants_gradient:
                    # gradient of the loss by the chunk's logits, written over exp(b)
                    b_exp_CV.mul_((kl_weight + ce_weight) / b_sum)
                    b_exp_CV.sub_(a_exp_CV.mul_(kl_weight / a_sum))
            else:
                a_CV.div_(temperature)
                b_CV.div_(temperature)
                warm_CV = chunks.like(rows, warm_student)
                a_sum, warm_sum = _exp_sum(a_CV, a_exp_CV), _exp_sum(b_CV, warm_CV)
                kl += temperature**2 * _kl_sum(a_CV, a_exp_CV, a_sum, b_CV, warm_sum)
                if chunks.wants_gradient:
                    b_exp_CV.mul_(ce_weight / b_sum)
                    b_exp_CV.add_(warm_CV.mul_(kl_weight * temperature / warm_sum))
                    b_exp_CV.sub_(a_exp_CV.mul_(kl_weight * temperature / a_sum))
            if chunks.wants_gradient:
                b_exp_CV.scatter_add_(1, labels_C, b_exp_CV.new_full(labels_C.shape, -ce_weight))
                chunks.add_gradient(rows, b_exp_CV)
        chunks.save(ctx)
        kl, ce = kl * chunks.scale, ce * chunks.scale
        agreement = agreed / max(student_ND.shape[0], 1)
        ctx.mark_non_differentiable(kl, ce, agreement)
        return kl_weight * kl + ce_weight * ce, kl, ce, agreement

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        return (*_scaled_gradients(ctx, grad_loss), None, None, None, None, None, None)


class _AnswerCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        labels_N: Tensor,
        chunk: int,
        denominator: Tensor | float | None,
        grad_enabled: bool,
    ) -> tuple[Tensor, Tensor]:
        chunks = _Chunks(ctx, hidden_ND, head_VD, chunk, denominator, grad_enabled)
        ce, ce_N = chunks.zero(), hidden_ND.new_empty(chunks.n, dtype=chunks.dtype)
        for rows in chunks.rows():
            logits_CV, exp_CV = chunks.project(hidden_ND[rows], chunks.logits), chunks.like(rows, chunks.exp)
            labels_C = labels_N[rows, None]
            _shift(logits_CV)
            exp_sum = _exp_sum(logits_CV, exp_CV)
            ce_C = exp_sum.log() - logits_CV.gather(1, labels_C)
            ce += ce_C.sum()
            ce_N[rows] = ce_C[:, 0]
            if chunks.wants_gradient:
                exp_CV.div_(exp_sum)
                exp_CV.scatter_add_(1, labels_C, exp_CV.new_full(labels_C.shape, -1.0))
                chunks.add_gradient(rows, exp_CV)
        chunks.save(ctx)
        ctx.mark_non_differentiable(ce_N)
        return ce * chunks.scale, ce_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        return (*_scaled_gradients(ctx, grad_loss), None, None, None, None)


class _Chunks:
    """Row chunks of one loss, with their shared buffers and accumulated gradients."""

    def __init__(
        self,
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        chunk: int,
        denominator: Tensor | float | None,
        grad_enabled: bool,
    ) -> None:
        self.n, self.vocabulary = hidden_ND.shape[0], head_VD.shape[0]
        self.hidden, self.head = hidden_ND, head_VD
        self.chunk = min(chunk, max(self.n, 1))
        # logits and sums are in float32 for half-precision models
        self.dtype = torch.promote_types(hidden_ND.dtype, torch.float32)
        # A step whose pages are all broken has no answer tokens: its loss is 0, not 0 divided by 0.
        counted = self.n if denominator is None else denominator
        self.scale = 1.0 / (counted.clamp(min=1) if isinstance(counted, Tensor) else max(counted, 1))
        wants_hidden, wants_head = (grad_enabled and need for need in ctx.needs_input_grad[:2])
        self.wants_gradient = wants_hidden or wants_head
        self.hidden_grad = torch.zeros_like(hidden_ND) if wants_hidden else None
        self.head_grad = torch.zeros_like(head_VD, dtype=self.dtype) if wants_head else None
        self.logits, self.exp = self.buffer(), self.buffer()

    def zero(self) -> Tensor:
        return torch.zeros((), dtype=self.dtype, device=self.hidden.device)

    def buffer(self) -> Tensor:
        """Allocate `[C, V]` for reuse by all chunks; a new allocation of this size costs page faults every time."""
        return torch.empty(self.chunk, self.vocabulary, dtype=self.dtype, device=self.hidden.device)

    def rows(self) -> list[slice]:
        return [slice(start, min(start + self.chunk, self.n)) for start in range(0, self.n, self.chunk)]

    @staticmethod
    def like(rows: slice, buffer: Tensor) -> Tensor:
        return buffer[: rows.stop - rows.start]

    def project(self, hidden_CD: Tensor, buffer_CV: Tensor) -> Tensor:
        """Compute the logits of the rows in the buffer."""
        out_CV = buffer_CV[: hidden_CD.shape[0]]
        if self.head.dtype == hidden_CD.dtype == self.dtype:
            return torch.mm(hidden_CD, self.head.t(), out=out_CV)
        return out_CV.copy_(hidden_CD.to(self.head.dtype) @ self.head.t())

    def add_gradient(self, rows: slice, logits_grad_CV: Tensor) -> None:
        logits_grad_CV = logits_grad_CV.to(self.head.dtype)
        if self.hidden_grad is not None:
            self.hidden_grad[rows] = logits_grad_CV @ self.head
        if self.head_grad is not None:
            hidden_CD = self.hidden[rows].to(self.head.dtype)
            if self.head_grad.dtype == self.head.dtype:
                self.head_grad.addmm_(logits_grad_CV.t(), hidden_CD)
            else:
                self.head_grad += logits_grad_CV.t() @ hidden_CD

    def save(self, ctx: Any) -> None:
        for gradient in (self.hidden_grad, self.head_grad):
            if gradient is not None:
                gradient.mul_(self.scale)
        ctx.head_dtype = self.head.dtype
        ctx.save_for_backward(self.hidden_grad, self.head_grad)


def _scaled_gradients(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, Tensor | None]:
    hidden_grad, head_grad = ctx.saved_tensors
    return (
        None if hidden_grad is None else hidden_grad * grad_loss,
        None if head_grad is None else (head_grad * grad_loss).to(ctx.head_dtype),
    )


def _shift(logits_CV: Tensor) -> Tensor:
    """Subtract the maximum of each row in place and return its index, `[C, 1]`."""
    top = logits_CV.max(dim=1, keepdim=True)
    logits_CV.sub_(top.values)
    return top.indices


def _exp_sum(logits_CV: Tensor, out_CV: Tensor) -> Tensor:
    """Write the exponentials of shifted logits to `out_CV` and return their row sums, `[C, 1]`."""
    return torch.exp(logits_CV, out=out_CV).sum(dim=1, keepdim=True)


def _kl_sum(a_CV: Tensor, a_exp_CV: Tensor, a_sum: Tensor, b_CV: Tensor, b_sum: Tensor) -> Tensor:
    """Sum KL(softmax a ‖ softmax b) over the rows, from shifted logits.

    `a_CV` is overwritten. The result is exactly 0 for a = b.
    """
    a_CV.sub_(b_CV).mul_(a_exp_CV)
    return (a_CV.sum(dim=1, keepdim=True) / a_sum - a_sum.log() + b_sum.log()).sum()


def _rows_per_chunk(vocabulary: int) -> int:
    return max(1, CHUNK_ELEMENTS // vocabulary)


def _check_rows(hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor) -> None:
    if (
        hidden_ND.dim() != 2
        or labels_N.shape != hidden_ND.shape[:1]
        or head_VD.shape[1:] != hidden_ND.shape[1:]
    ):
        raise ValueError(
            f"expected hidden states [N, D], head [V, D] and labels [N], got {tuple(hidden_ND.shape)}, "
            f"{tuple(head_VD.shape)} and {tuple(labels_N.shape)}"
        )
