"""FCoT-VL: document vision-language models that read with a half or a quarter of their visual tokens.

`import fcot_vl` registers the student model with the Auto classes of transformers. A saved student then loads with
`AutoModelForImageTextToText.from_pretrained` and `AutoProcessor.from_pretrained` like any other model.
"""

from fcot_vl.models import FCoTVLConfig, FCoTVLForConditionalGeneration, FCoTVLProcessor
from fcot_vl.version import __version__

__all__ = ["FCoTVLConfig", "FCoTVLForConditionalGeneration", "FCoTVLProcessor", "__version__"]
