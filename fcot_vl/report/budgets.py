"""Models with equal visual tokens: their groups, and the paired comparison of every student with the others."""

from __future__ import annotations

from typing import Any

from fcot_vl.report.retention import retention_difference
from fcot_vl.report.run_data import ModelResults, RunData

BUDGET_NAMES = {
    0.5: "half of the visual tokens",
    0.25: "a quarter of the visual tokens",
    0.125: "an eighth of the visual tokens",
}


def budgets(run: RunData) -> list[tuple[float, list[ModelResults]]]:
    """Group the models by the share of visual tokens they keep, largest share first, without the share 1.

    The shares are those of the students, or those of all baselines if there are no students yet. A baseline joins a
    group by its nominal share. If no student has this share, it joins by its share averaged over the decoder's layers.
    """
    every = {m.variant.nominal_keep for m in run.models if m.variant.nominal_keep < 1}
    students = {m.variant.nominal_keep for m in run.models if m.variant.compress_ratio > 1}
    whole = run.teacher.mean("visual_tokens_layer_mean")

    def belongs(model: ModelResults, share: float) -> bool:
        nominal = model.variant.nominal_keep
        if nominal in students or not students or nominal == 1:
            return nominal == share
        cost = model.mean("visual_tokens_layer_mean")
        return bool(whole and cost and abs(cost / whole - share) < 0.02 * share)

    shares = sorted(students or every, reverse=True)
    return [(share, [m for m in run.models if belongs(m, share)]) for share in shares]


def trained_and_fastv(run: RunData) -> list[tuple[float, list[ModelResults]]]:
    """Return `budgets` with only trained models and FastV (paper, Fig. 1); `peers.png` ranks the other baselines."""
    return [
        (share, [model for model in models if model.variant.method in ("none", "fastv")])
        for share, models in budgets(run)
    ]


def budget_name(share: float) -> str:
    return BUDGET_NAMES.get(share, f"{share:.3g} of the visual tokens")


def comparisons(run: RunData) -> list[dict[str, Any]]:
    """Compare every student with all other models of equal visual tokens, nominal or averaged over layers.

    Returns:
        One row per pair, sorted by share (largest first), student and difference of retention (worst first). Pairs
        without common predictions are left out.
    """
    rows = []
    for share, models in budgets(run):
        students = [m for m in models if m.variant.stage == "post-train" and m.variant.method == "none"]
        for number, student in enumerate(students):
            before = [m.variant for m in students[: number + 1]]  # a pair of students is listed once
            for other in (m for m in models if m.variant.stage != "realign" and m.variant not in before):
                found = retention_difference(student, other, run.teacher, run.tasks)
                if found is None:
                    continue
                difference, bounds = found
                rows.append(
                    {
                        "share": share,
                        "student": student.variant.label,
                        "other": other.variant.label,
                        "student_tokens": student.mean("visual_tokens_layer_mean"),
                        "other_tokens": other.mean("visual_tokens_layer_mean"),
                        "difference": difference,
                        "difference_ci": bounds,
                    }
                )
    return sorted(rows, key=lambda row: (-row["share"], row["student"], row["difference"]))
