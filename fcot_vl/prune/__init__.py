"""Training-free peers: visual tokens dropped inside an unchanged model, by a call that another call undoes.

One file per peer (`fastv`, `random_drop`, `uniform`, `smaller_page`), each with an `apply_*(model, keep,
...)` that returns a `PruneHandle`; `engine` is what they share. Nothing here imports another part of the
package: any Hugging Face InternVL with a Qwen2- or Llama-like decoder is a host.
"""
