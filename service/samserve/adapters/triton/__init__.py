"""The two models on Triton Inference Server: what docs/triton.md calls the backend contract, the gateway's side.

`TritonBackend` follows one Triton. While it is up there is a `TritonSession`, which belongs to one build of the models
and holds what runs them: encoder, decoder and, where both share a host, the memory through which they exchange tensors.
"""

from samserve.adapters.triton.backend import TritonBackend
from samserve.adapters.triton.session import TritonSession

__all__ = ["TritonBackend", "TritonSession"]
