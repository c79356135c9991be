"""Merging of several checkpoints of one architecture into one, tensor by tensor, for any model in safetensors.

`checkpoint` reads a folder as named tensors, `architecture` rejects incompatible checkpoints, `methods` implements the
arithmetic, `stream` merges from files to files, and `shapley` and `scores` derive weights from the scores of
checkpoints.
"""
