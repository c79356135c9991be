"""Rule-based checks of whether a model's response gives the right answer.

Between a teacher's sampled reasoning and the training data: what passes is trained on, so **in doubt the answer
is no**. A right answer that is refused costs one sample, a wrong one that passes teaches a wrong chain of
thought.

```python
verify("40 and 2 are 42.\\nAnswer: 42 apples", ["42"])  # True
verify("The total is not 42.", ["42"])  # False
```
"""

from fcot_vl.data.verify.check import verify
from fcot_vl.data.verify.extract import extract_answer
from fcot_vl.data.verify.values import same_value

__all__ = ["extract_answer", "same_value", "verify"]
