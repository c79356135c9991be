"""Rule-based checks of a model's response against the accepted answers.

The checks filter the sampled reasoning of a teacher before it becomes training data. **In doubt, the result is False.**
A correct answer that is rejected costs one sample. A wrong one that is accepted teaches a wrong chain of thought.

Rules for the cases where conventions differ:

- The last marked answer decides (`Answer:`, `the answer is`, `\\boxed{}`, ...). The result is False if a different
  marked answer comes before it, unless a word such as "wait" comes between them. It is also False if doubt comes before
  the answer or a retraction after it. Without a mark, a number or a text counts only if a short sentence asserts it
  (after `is`, `=`, ...), never because it merely occurs.
- Numbers are compared exactly. `1,234` is in thousands, `1.234` is not, and `1,5` is 1.5. `(5)` is -5. 3.14 is not
  3.14159. Only a non-terminating fraction equals its rounding (1/3 and 0.333, not 0.33). A leading zero (`007`) makes a
  code, which is compared as text.
- 12% is 0.12 and 1/8 is 12.5%. 12 and 12% are equal only if the question asks for percent. The same applies to
  `million`.
- A unit, currency or counted noun that one side omits is ignored, but two different ones make the answers different. km
  and m are converted.
- `05/03/2024` equals only itself, because either part may be the month. `1998` and `98` agree in a date.
- Lists need every item. The order matters only if they are in () or [], or if the question asks for an order.
- An option is named by its letter, its text, or both if they agree. `A cat` is not A.
- Texts are compared after NFKC, lower-casing, and removal of outer punctuation and articles. Accents count. Part of a
  text does not equal the text.
- Other mathematics is compared by math-verify (extra `cot`), if it is installed and the expression is small.

```python
verify("40 and 2 are 42.\\nAnswer: 42 apples", ["42"])  # True
verify("The total is not 42.", ["42"])  # False
```
"""

from fcot_vl.verify.check import verify
from fcot_vl.verify.extract import extract_answer
from fcot_vl.verify.values import same_value

__all__ = ["extract_answer", "same_value", "verify"]
