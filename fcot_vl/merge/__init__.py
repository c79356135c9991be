"""Merging: several checkpoints of one architecture become one, tensor by tensor, for any model in safetensors.

`checkpoint` sees a folder as named tensors, `architecture` refuses what does not belong together, `methods` holds the
arithmetic, `stream` runs it from files to files, `shapley` and `scores` find weights by what checkpoints are worth.
"""
