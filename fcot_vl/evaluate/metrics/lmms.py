"""Scores of benchmarks as lmms-eval 0.7.3 computes them, where they differ from those of `metrics.py`.

The contract is that of `metrics.py`: a prediction and the accepted answers of one question give a number in [0, 1].
DocVQA scores reported with lmms-eval use the form here; `metrics.py` has the form of the original scripts.
`tasks/public.py` defines the metric of each benchmark. The quirks of lmms-eval are kept and checked against its
recorded results (`tests/data/lmms-eval`, recorded by `tools/record_lmms_eval.py`).
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence

from fcot_vl.evaluate.metrics.document import ANLS_THRESHOLD, levenshtein

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TO_HALF_WIDTH = {0xFF01 + i: 0x21 + i for i in range(94)} | {0x3000: " "}
_OPTION = re.compile(r"\s*([A-Z])\.")


def lmms_anls(prediction: str, answers: Sequence[str]) -> float:
    """Compute the ANLS of one question (DocVQA, InfoVQA).

    Edits are counted after runs of inner whitespace are reduced to one space. They are divided by the length of the
    longer original text.
    """
    prediction = prediction.strip()
    distance = min(_distance(prediction, answer) for answer in answers)
    return 0.0 if 1 - distance < ANLS_THRESHOLD else 1 - distance


def _distance(prediction: str, answer: str) -> float:
    longest = max(len(answer.upper()), len(prediction.upper()))
    edits = levenshtein(*(" ".join(text.strip().lower().split()) for text in (answer, prediction)))
    return edits / longest if longest else 0.0


def contains(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if an accepted answer occurs anywhere in the prediction (OCRBench), else 0.0.

    Case is ignored. Full-width letters and digits count as their usual forms, a line break as a space.
    """
    read = _folded(prediction)
    return float(any(_folded(answer) in read for answer in answers))


def _folded(text: str) -> str:
    return text.translate(_TO_HALF_WIDTH).lower().strip().replace("\n", " ")


def contains_formula(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if an accepted formula occurs anywhere in the prediction (HME100k in OCRBench), else 0.0.

    Spaces and line breaks are ignored, case counts.
    """
    read = _tight(prediction)
    return float(any(_tight(answer) in read for answer in answers))


def _tight(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


def option(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if the prediction is the right letter, or begins with it and a period (AI2D), else 0.0.

    A letter followed by a period and more text must be a capital. Otherwise case and punctuation are ignored: `(b)` is
    B, but `b. bird` is not.
    """
    letter = _OPTION.match(prediction)
    found = letter[1] if letter else prediction
    return float(any(_bare(found) == _bare(answer) for answer in answers))


def _bare(text: str) -> str:
    return text.strip().lower().translate(_NO_PUNCTUATION)


def option_or_letter(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if the prediction is the right letter (ScienceQA), else 0.0.

    The letter alone counts in either case. It must be a capital if a period follows, with or without more text.
    """
    prediction = prediction.strip()
    right = [answer.strip().lower() for answer in answers]
    if prediction.lower() in right:
        return 1.0
    named = prediction[:1].isupper() and prediction[1:2] == "."
    return float(named and prediction[0].lower() in right)


def yes_or_no(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if the prediction says the same as the answer, yes or no (MME), else 0.0.

    A single letter `y` or `n` counts as its word. Otherwise "yes", then "no", is looked for in the first four
    characters, with periods removed.
    """
    said = _said(prediction)
    return float(any(said == answer.lower().strip().replace(".", "") for answer in answers))


def _said(prediction: str) -> str:
    text = prediction.lower().strip().replace(".", "")
    if len(text) == 1:
        return {"y": "yes", "n": "no"}.get(text, "other")
    return next((word for word in ("yes", "no") if word in text[:4]), "other")


LMMS_METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "lmms_anls": lmms_anls,
    "contains": contains,
    "contains_formula": contains_formula,
    "option": option,
    "option_or_letter": option_or_letter,
    "yes_or_no": yes_or_no,
}
