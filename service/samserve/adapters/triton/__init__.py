"""The two models on Triton Inference Server: the gateway's side of the interface in docs/triton.md.

`TritonBackend` follows one Triton. While Triton is up there is a `TritonSession` for the served build of the models. It
owns the encoder, the decoder and, if both processes share a host, the shared memory for their tensors.
"""

from samserve.adapters.triton.backend import TritonBackend
from samserve.adapters.triton.session import TritonSession

__all__ = ["TritonBackend", "TritonSession"]
