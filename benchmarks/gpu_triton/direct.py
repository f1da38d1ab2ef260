"""Requests to the decoder on Triton without a gateway, with the embedding in system or in CUDA shared memory."""

import contextlib
import secrets
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from samserve.adapters.triton.connection import TritonConnection
from samserve.adapters.triton.shared_memory import SharedMemory
from samserve.domain.manifest import DECODER, ModelManifest

_MASKS = 4
_PAGE = 4096
DEVICE_ID = 0


class CudaRegion:
    """An array in device memory, registered with Triton as a shared memory region."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        # Imported here, because it needs CUDA's Python bindings.
        from tritonclient.utils import cuda_shared_memory

        self.name = f"samserve-cuda-{secrets.token_hex(8)}"
        self.nbytes = array.nbytes
        self._library = cuda_shared_memory
        self._handle = cuda_shared_memory.create_shared_memory_region(self.name, self.nbytes, DEVICE_ID)
        cuda_shared_memory.set_shared_memory_region(self._handle, [array])

    async def register(self, address: str) -> None:
        """Register the region with Triton."""
        async with InferenceServerClient(address) as client:
            await client.register_cuda_shared_memory(
                self.name, self._library.get_raw_handle(self._handle), DEVICE_ID, self.nbytes
            )

    async def close(self, address: str) -> None:
        """Unregister the region and free it."""
        with contextlib.suppress(InferenceServerException):
            async with InferenceServerClient(address) as client:
                await client.unregister_cuda_shared_memory(self.name)
        self._library.destroy_shared_memory_region(self._handle)


class DirectDecoder:
    """One warm click on one embedding, sent in the same way as by the gateway.

    Masks come back by system shared memory. Points and labels travel in the request.
    """

    def __init__(self, connection: TritonConnection, manifest: ModelManifest, inputs: dict[str, Any]) -> None:
        side = manifest.low_res_size
        self._connection = connection
        self._outputs = {"low_res_masks": (1, 1, _MASKS, side, side), "iou_predictions": (1, 1, _MASKS)}
        self._small = {name: inputs[name] for name in ("point_coords", "point_labels", "has_mask_input")}
        self._large = {name: inputs[name] for name in ("image_embeddings", "mask_input")}
        sizes = [array.nbytes for array in self._large.values()]
        sizes += [4 * int(np.prod(shape)) for shape in self._outputs.values()]
        starts = np.cumsum([0, *(-(-size // _PAGE) * _PAGE for size in sizes)])
        names = [*self._large, *self._outputs]
        self._spans = {name: (int(start), size) for name, start, size in zip(names, starts, sizes, strict=False)}
        self._memory = SharedMemory(int(starts[-1]))
        for name, array in self._large.items():
            self._memory.array(self._spans[name][0], array.shape, array.dtype)[...] = array

    async def attach(self) -> bool:
        """Register the memory with Triton. Returns False if Triton cannot map it."""
        return await self._connection.register(self._memory.name, self._memory.nbytes)

    async def decode(self, region: CudaRegion | None = None) -> npt.NDArray[np.float32]:
        """Decode the masks of the click.

        Args:
            region: holds the embedding in device memory; by default it is taken from system shared memory.
        """
        inputs = []
        for name, array in {**self._large, **self._small}.items():
            tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            if name in self._small:
                tensor.set_data_from_numpy(array)
            elif region is not None and name == "image_embeddings":
                tensor.set_shared_memory(region.name, region.nbytes)
            else:
                start, size = self._spans[name]
                tensor.set_shared_memory(self._memory.name, size, start)
            inputs.append(tensor)
        wanted = []
        for name in self._outputs:
            output = InferRequestedOutput(name)
            start, size = self._spans[name]
            output.set_shared_memory(self._memory.name, size, start)
            wanted.append(output)
        await self._connection.infer(DECODER, inputs, wanted)
        masks: npt.NDArray[np.float32] = self._memory.array(
            self._spans["low_res_masks"][0], self._outputs["low_res_masks"], np.float32
        )
        return masks

    async def close(self) -> None:
        """Unregister the memory and remove it."""
        await self._connection.unregister(self._memory.name)
        self._memory.close()
