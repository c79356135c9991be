"""KV cache that grows in place, for evaluation in large batches.

`generator.py` of `evaluate` passes it to `generate()`. The cache of transformers copies its whole content at every
step. With 96 pages of a few hundred tokens, this costs several times as much as the model itself on a CPU. The cache
here keeps spare capacity and writes into it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

SPARE_TOKENS = 64


class PreallocatedLayer(DynamicLayer):
    """Cache layer whose keys and values `[batch, heads, tokens, head_dim]` are views of larger buffers."""

    keys: Tensor
    values: Tensor

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append new keys and values and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.key_buffer, self.value_buffer = self.keys, self.values
        n_held = self.get_seq_length()
        self.keys, self.key_buffer = _append(self.keys, self.key_buffer, key_states, n_held)
        self.values, self.value_buffer = _append(self.values, self.value_buffer, value_states, n_held)
        return self.keys, self.values


def _append(held: Tensor, buffer: Tensor, new: Tensor, n_held: int) -> tuple[Tensor, Tensor]:
    """Append states and return (all states, the buffer that holds them)."""
    n_all = n_held + new.shape[-2]
    # If rows were reordered or selected since the last step, a new tensor has replaced the view of the buffer.
    unchanged = held.data_ptr() == buffer.data_ptr() and buffer.shape[:2] == new.shape[:2]
    if not unchanged or buffer.shape[-2] < n_all:
        larger = new.new_empty(*new.shape[:2], n_all + max(SPARE_TOKENS, n_all // 4), new.shape[-1])
        if n_held:
            larger[:, :, :n_held] = held
        buffer = larger
    buffer[:, :, n_held:n_all] = new
    return buffer[:, :, :n_all], buffer


def preallocated_cache(n_layers: int) -> DynamicCache:
    """Create an empty cache of `n_layers` layers for one `generate()` call."""
    cache = DynamicCache()
    cache.layers = [PreallocatedLayer() for _ in range(n_layers)]
    return cache
