"""Orders in which to read samples: shuffled, but chunk by chunk.

`ChunkShuffle` gives the numbers of the samples of one epoch.  It needs no machine learning
library; `lazyarr.torch.ChunkShuffle` is the same one as a sampler of torch's.
"""

from __future__ import annotations

from lazyarr.sampling.shuffle import ChunkShuffle

__all__ = ["ChunkShuffle"]
