"""Scores of document benchmarks, as their original scripts compute them.

A metric takes a prediction and the accepted answers of one question, and returns a number in [0, 1]. Nothing here
depends on a model, a page or a task.

The quirks of the original scripts (a period stripped or kept, what counts as a number) are kept on purpose: a
score that differs from the published evaluation in the third digit cannot be compared with published numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

ANLS_THRESHOLD = 0.5
RELAXED_TOLERANCE = 0.05

# ---------------------------------------------------------------------------------------------- edit distance


def levenshtein(a: str, b: str) -> int:
    """Count the single-character insertions, deletions and substitutions that turn `a` into `b`.

    The algorithm is bit-parallel (Myers 1999, in the form of Hyyrö 2003) on Python's unbounded integers. It makes one
    pass over `b`, so a page of 600 characters costs well under a millisecond.
    """
    if not a or not b:
        return len(a) + len(b)
    matches: dict[str, int] = {}
    for i, char in enumerate(a):
        matches[char] = matches.get(char, 0) | (1 << i)
    full, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    plus, minus, distance = full, 0, len(a)  # vertical differences of +1 and -1 in the current column
    for char in b:
        match = matches.get(char, 0)
        diagonal = ((((match & plus) + plus) ^ plus) | match | minus) & full
        horizontal_plus = minus | (~(diagonal | plus) & full)
        horizontal_minus = plus & diagonal
        if horizontal_plus & last:
            distance += 1
        elif horizontal_minus & last:
            distance -= 1
        horizontal_plus = ((horizontal_plus << 1) | 1) & full
        horizontal_minus = (horizontal_minus << 1) & full
        plus = horizontal_minus | (~(diagonal | horizontal_plus) & full)
        minus = horizontal_plus & diagonal
    return distance


# ----------------------------------------------------------------------------------------------------- scores


def anls(prediction: str, answers: Sequence[str], threshold: float = ANLS_THRESHOLD) -> float:
    """Compute the average normalized Levenshtein similarity (ANLS) of one question (DocVQA, InfoVQA).

    Both sides are lower-cased and stripped. The best accepted answer counts. A similarity below `threshold` gives 0;
    one equal to it is kept. Two empty strings agree (the original script divides by zero there).

    Source: Biten et al. 2019 eq. 1, as scored by the evaluation scripts of InternVL.
    """
    return max(_anls_of_pair(prediction, answer, threshold) for answer in _some(answers))


def _anls_of_pair(prediction: str, answer: str, threshold: float) -> float:
    prediction, answer = prediction.lower().strip(), answer.lower().strip()
    longest = max(len(prediction), len(answer))
    if longest == 0:
        return 1.0
    similarity = 1 - levenshtein(prediction, answer) / longest
    return similarity if similarity >= threshold else 0.0


def relaxed_correctness(target: str, prediction: str, tolerance: float = RELAXED_TOLERANCE) -> bool:
    """Return True if a ChartQA answer is correct: a number within 5% of the target, or a text equal except for case.

    As in the original, a trailing `%` divides by 100, a target of 0 is compared as text, text is not stripped, and
    a string with thousands separators or units is text.

    Source: Masry et al. 2022 (ChartQA) section 5.1, in the form of pix2struct's metrics.
    """
    predicted_number, target_number = _as_number(prediction), _as_number(target)
    if predicted_number is not None and target_number:
        return abs(predicted_number - target_number) / abs(target_number) <= tolerance
    return prediction.lower() == target.lower()


def _as_number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if the stripped prediction is relaxed-correct for any accepted answer (ChartQA), else 0.0."""
    return float(any(relaxed_correctness(answer, prediction.strip()) for answer in _some(answers)))


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if the prediction equals an accepted answer except for case and outer whitespace, else 0.0."""
    return float(any(prediction.strip().lower() == answer.strip().lower() for answer in _some(answers)))


def cer(prediction: str, reference: str) -> float:
    """Compute the character error rate: edits / characters of the reference.

    The rate is above 1 if the prediction is much longer than the reference. Outer whitespace is ignored, everything
    else (case, line breaks) counts. An empty reference gives 0 for an empty prediction and 1 otherwise.
    """
    prediction, reference = prediction.strip(), reference.strip()
    if not reference:
        return float(bool(prediction))
    return levenshtein(prediction, reference) / len(reference)


def cer_score(prediction: str, answers: Sequence[str]) -> float:
    """Return max(0, 1 - CER) for the best accepted answer, so that higher is better, as for every other score."""
    return max(max(0.0, 1.0 - cer(prediction, answer)) for answer in _some(answers))


def textvqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Compute the soft VQA accuracy of one question (TextVQA) against its ten human answers.

    Each human is left out in turn and the prediction scores min(1, matches among the other nine / 3). The
    mean over the ten is returned. Both sides go through the EvalAI normalization of `normalize_vqa`.

    Raises:
        ValueError: If there are not exactly ten answers.
    """
    if len(answers) != 10:
        raise ValueError(f"TextVQA accuracy needs ten human answers, got {len(answers)}.")
    predicted = normalize_vqa(prediction)
    hits = [normalize_vqa(answer) == predicted for answer in answers]
    left_out = [min(1.0, (sum(hits) - hit) / 3) for hit in hits]
    return sum(left_out) / len(left_out)


def _some(answers: Sequence[str]) -> Sequence[str]:
    if isinstance(answers, str):
        raise ValueError("answers must be a list of accepted answers, not one string.")
    if not answers:
        raise ValueError("a question without an accepted answer cannot be scored.")
    return answers


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "anls": anls,
    "relaxed": relaxed_accuracy,
    "exact": exact_match,
    "cer": cer_score,
    "textvqa": textvqa_accuracy,
}

# ----------------------------------------------------------------------------- EvalAI normalization (TextVQA)

_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBER_WORDS.split())}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
# The original pattern reads "(?!<=\d)(\.)(?!\d)". Its first group was meant as a look-behind and never excludes
# anything, so every period that is not followed by a digit is removed. The original passes its flags in the place of
# `count`: re.UNICODE is 32.
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS_STRIPPED = 32


def normalize_vqa(text: str) -> str:
    """Normalize an answer as EvalAI does: lower case, no articles, digits for words, contractions, few marks.

    A punctuation mark that occurs next to a space anywhere in the text is removed, any other becomes a space. A period
    stays only in front of a digit.

    Source: `EvalAIAnswerProcessor` of Pythia, used by TextVQA's evaluation and by InternVL.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    cleaned = text
    for mark in _PUNCTUATION:
        beside_space = mark + " " in text or " " + mark in text
        cleaned = cleaned.replace(mark, "" if beside_space else " ")
    cleaned = _PERIOD.sub("", cleaned, count=_PERIODS_STRIPPED)
    words = [_NUMBERS.get(word, word) for word in cleaned.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _contraction_table(listing: str) -> dict[str, str]:
    return dict(entry.split(":") for entry in listing.split())


# Only entries that can have an effect: the text is lower case here, and an entry that maps to itself changes nothing.
_CONTRACTIONS = _contraction_table(
    """
    aint:ain't arent:aren't cant:can't couldve:could've couldnt:couldn't couldn'tve:couldn't've
    couldnt've:couldn't've didnt:didn't doesnt:doesn't dont:don't hadnt:hadn't hadnt've:hadn't've
    hadn'tve:hadn't've hasnt:hasn't havent:haven't hed:he'd hed've:he'd've he'dve:he'd've hes:he's howd:how'd
    howll:how'll hows:how's isnt:isn't itd:it'd itd've:it'd've it'dve:it'd've itll:it'll maam:ma'am
    mightnt:mightn't mightnt've:mightn't've mightn'tve:mightn't've mightve:might've mustnt:mustn't
    mustve:must've neednt:needn't notve:not've oclock:o'clock oughtnt:oughtn't ow's'at:'ow's'at
    'ows'at:'ow's'at 'ow'sat:'ow's'at shant:shan't shed've:she'd've she'dve:she'd've shouldve:should've
    shouldnt:shouldn't shouldnt've:shouldn't've shouldn'tve:shouldn't've somebody'd:somebodyd
    somebodyd've:somebody'd've somebody'dve:somebody'd've somebodyll:somebody'll somebodys:somebody's
    someoned:someone'd someoned've:someone'd've someone'dve:someone'd've someonell:someone'll
    someones:someone's somethingd:something'd somethingd've:something'd've something'dve:something'd've
    somethingll:something'll thats:that's thered:there'd thered've:there'd've there'dve:there'd've
    therere:there're theres:there's theyd:they'd theyd've:they'd've they'dve:they'd've theyll:they'll
    theyre:they're theyve:they've twas:'twas wasnt:wasn't wed've:we'd've we'dve:we'd've weve:we've
    werent:weren't whatll:what'll whatre:what're whats:what's whatve:what've whens:when's whered:where'd
    wheres:where's whereve:where've whod:who'd whod've:who'd've who'dve:who'd've wholl:who'll whos:who's
    whove:who've whyll:why'll whyre:why're whys:why's wont:won't wouldve:would've wouldnt:wouldn't
    wouldnt've:wouldn't've wouldn'tve:wouldn't've yall:y'all yall'll:y'all'll y'allll:y'all'll
    yall'd've:y'all'd've y'alld've:y'all'd've y'all'dve:y'all'd've youd:you'd youd've:you'd've
    you'dve:you'd've youll:you'll youre:you're youve:you've
    """
)
