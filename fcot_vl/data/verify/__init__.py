"""Rule-based checks of whether a model's response gives the right answer.

Between a teacher's sampled reasoning and the training data: what passes is trained on, so **in doubt the answer
is no**. A right answer that is refused costs one sample, a wrong one that passes teaches a wrong chain of
thought.

What was decided where people differ:

- The last marked answer decides (`Answer:`, `the answer is`, `\\boxed{}`, ...). A different one before it makes
  the answer
  no, unless a word such as "wait" stands between; so do doubt in front and a retraction behind. Without a mark,
  a number or a
  text counts where a short sentence asserts it (behind `is`, `=`, ...), never because it occurs.
- Numbers are compared exactly. `1,234` is thousands, `1.234` is not, `1,5` is 1.5. `(5)` is -5. 3.14 is not
  3.14159; only a
  fraction without an end equals its rounding (1/3 and 0.333, not 0.33). A zero in front (`007`) makes a code:
  text.
- 12% is 0.12 and 1/8 is 12.5%. 12 and 12% are the same only if the question asks for percent; so with `million`.
- A unit, currency or counted thing that one side leaves out is forgiven, two different ones are not; km and m
  convert.
- `05/03/2024` equals only itself: either part may be the month. `1998` and `98` agree in a date.
- Lists need every item, in any order, unless they stand in () or [], or the question asks for an order.
- An option is named by its letter, its text, or both where they agree. `A cat` is not A.
- Text is equal after NFKC, small letters, outer punctuation and articles; accents count. Part of a text is not
  the text.
- Mathematics that is left is compared by math-verify (extra `cot`), if it is installed and the expression small.

```python
verify("40 and 2 are 42.\\nAnswer: 42 apples", ["42"])  # True
verify("The total is not 42.", ["42"])  # False
```
"""

from fcot_vl.data.verify.check import verify
from fcot_vl.data.verify.extract import extract_answer
from fcot_vl.data.verify.values import same_value

__all__ = ["extract_answer", "same_value", "verify"]
