"""Training-free peers: visual tokens dropped inside an unchanged model, by a call that another call undoes.

One file per peer, each with an `apply_*(model, keep, ...)` that returns a `PruneHandle`. `engine` is what they share,
`before_decoder` and `vit` what those share that act on the projector's output, `rating` what those share that ask the
decoder's attention; `method` knows them by name. Nothing here imports another part of the package: any Hugging Face
InternVL or LLaVA with a Qwen-, Llama- or Phi-3-like decoder is a host.
"""
