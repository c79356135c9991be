"""The scores of benchmarks as lmms-eval 0.7.3 gives them, where those of `metrics.py` are not the same.

Beside `metrics.py`, under the same contract: a prediction and the accepted answers of one question, a number in [0, 1].
Two people who report DocVQA by lmms-eval mean the form here; the one of `metrics.py` is that of the original scripts.
`published.py` says which benchmark is scored by which. Kept with their quirks, and checked against what lmms-eval gave
(`tests/data/lmms-eval`, recorded by `tools/record_lmms_eval.py`).
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence

from fcot_vl.evaluate.metrics import ANLS_THRESHOLD, levenshtein

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TO_HALF_WIDTH = {0xFF01 + i: 0x21 + i for i in range(94)} | {0x3000: " "}
_OPTION = re.compile(r"\s*([A-Z])\.")


def lmms_anls(prediction: str, answers: Sequence[str]) -> float:
    """ANLS of one question (DocVQA, InfoVQA): edits are counted between texts whose inner whitespace is made single,
    but divided by the length of the longer text as it was written.
    """
    prediction = prediction.strip()
    distance = min(_distance(prediction, answer) for answer in answers)
    return 0.0 if 1 - distance < ANLS_THRESHOLD else 1 - distance


def _distance(prediction: str, answer: str) -> float:
    longest = max(len(answer.upper()), len(prediction.upper()))
    edits = levenshtein(*(" ".join(text.strip().lower().split()) for text in (answer, prediction)))
    return edits / longest if longest else 0.0


def contains(prediction: str, answers: Sequence[str]) -> float:
    """1.0 if an accepted answer stands anywhere in the prediction, whatever the case (OCRBench), else 0.0.

    Full-width letters and digits count as their usual forms, a line break as a space.
    """
    read = _folded(prediction)
    return float(any(_folded(answer) in read for answer in answers))


def _folded(text: str) -> str:
    return text.translate(_TO_HALF_WIDTH).lower().strip().replace("\n", " ")


def contains_formula(prediction: str, answers: Sequence[str]) -> float:
    """The same for formulas (OCRBench's HME100k): spaces and line breaks are ignored, case counts."""
    read = _tight(prediction)
    return float(any(_tight(answer) in read for answer in answers))


def _tight(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


def option(prediction: str, answers: Sequence[str]) -> float:
    """1.0 if the prediction is the right letter, or begins with it and a period (AI2D), else 0.0.

    Case and punctuation are ignored: `(b)` is B, `b. bird` is not.
    """
    letter = _OPTION.match(prediction)
    found = letter[1] if letter else prediction
    return float(any(_bare(found) == _bare(answer) for answer in answers))


def _bare(text: str) -> str:
    return text.strip().lower().translate(_NO_PUNCTUATION)


def option_or_letter(prediction: str, answers: Sequence[str]) -> float:
    """1.0 if the prediction is the right letter (ScienceQA), else 0.0.

    In either case alone; followed by a period and anything, as a capital.
    """
    prediction = prediction.strip()
    right = [answer.strip().lower() for answer in answers]
    if prediction.lower() in right:
        return 1.0
    named = prediction[:1].isupper() and prediction[1:2] == "."
    return float(named and prediction[0].lower() in right)


def yes_or_no(prediction: str, answers: Sequence[str]) -> float:
    """1.0 if the prediction says yes or no, as the answer does (MME), else 0.0.

    One letter counts as its word; of longer texts the first four characters, periods left out, say it, yes before no.
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
