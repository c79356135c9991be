"""Training-free baselines: methods that drop visual tokens inside an unchanged model and can be removed again.

There is one file per method, each with an `apply_*(model, keep, ...)` that returns a `PruneHandle`. `hooks.py` holds
the code that all methods share, `before_decoder.py` and `vit_attention.py` that of methods that act on the output of
the projector, and `decoder_attention.py` that of methods that use the attention of the decoder. `method.py` selects
them by name. Nothing here imports another part of the package. The methods work on any Hugging Face InternVL or LLaVA
with a decoder like Qwen, Llama or Phi-3.
"""
