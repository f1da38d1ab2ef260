"""One model on Triton: arrays in and out, through shared memory if there is some."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import np_to_triton_dtype

from samserve.adapters.triton.connection import TritonConnection
from samserve.adapters.triton.scratch import Scratch
from samserve.adapters.triton.shared_memory import SharedMemory
from samserve.domain.errors import RETRY_AFTER_SECONDS, ModelUnavailable

_INLINE_BYTES = 4096
"""Smaller tensors are sent in the request: points and labels."""


Arrays = Mapping[str, npt.NDArray[Any]]
Shape = tuple[int, ...]


class TritonModel:
    """Runs one model of one build, as long as Triton serves that build.

    Args:
        fingerprint: of the build.
        memory: is registered with Triton; without one all tensors travel by wire.
        scratch: part of that memory, for what is not in it yet.
    """

    def __init__(
        self,
        connection: TritonConnection,
        name: str,
        fingerprint: str,
        memory: SharedMemory | None = None,
        scratch: Scratch | None = None,
    ) -> None:
        self._connection = connection
        self._name = name
        self._fingerprint = fingerprint
        self._memory = memory
        self._scratch = scratch
        self._down: str | None = None
        self._calls: set[asyncio.Task[InferResult]] = set()

    @property
    def in_flight(self) -> int:
        """Number of requests that Triton has not answered."""
        return len(self._calls)

    def suspend(self, reason: str) -> None:
        """Triton is down: fail the requests in flight, and all new ones until `resume`."""
        self._down = reason
        for call in self._calls:
            call.cancel()

    def resume(self) -> None:
        """Triton is back with the same build."""
        self._down = None

    async def run(self, inputs: Arrays, outputs: Mapping[str, tuple[Shape, npt.DTypeLike]]) -> Arrays:
        """Run the model once.

        Args:
            inputs: by name. One that lies in the shared memory already is only pointed at.
            outputs: shapes and types of what is wanted. All have to be wanted, in the model's order.

        Returns:
            The outputs. In shared memory, they keep their room there until they and their views are gone.

        Raises:
            CapacityExceeded: the model's queue is full, or the request was in it for too long.
            ModelUnavailable: Triton cannot be reached, failed, or does not serve this build any more.
        """
        if self._down is not None:
            raise ModelUnavailable(self._down, RETRY_AFTER_SECONDS)
        placed = {name: self._place(array) for name, array in inputs.items()}
        room = self._room(outputs)
        request = [self._input(name, array) for name, array in placed.items()]
        wanted = [self._output(name, room.get(name)) for name in outputs]
        by_wire = not room and all(self._offset(array) is None for array in placed.values())
        sent = time.monotonic()
        answered = False
        try:
            result = await self._infer(request, wanted)
            answered = True
        finally:
            if self._scratch is not None and not answered:
                self._scratch.abandon(self._name, list(room.values()))
        if self._scratch is not None:
            self._scratch.answered(self._name, sent)
        if by_wire and await self._connection.fingerprint(self._name) != self._fingerprint:
            # A restarted Triton does not know the shared memory, so such requests fail. Without shared memory, only
            # this check detects a restart.
            raise ModelUnavailable("Triton now serves a different model", RETRY_AFTER_SECONDS)
        return room or {name: result.as_numpy(name) for name in outputs}

    async def _infer(self, request: Sequence[InferInput], wanted: Sequence[InferRequestedOutput]) -> InferResult:
        call = asyncio.create_task(self._connection.infer(self._name, request, wanted))
        self._calls.add(call)
        try:
            await asyncio.wait((call,))
        finally:
            self._calls.discard(call)
            call.cancel()
        if call.cancelled():
            raise ModelUnavailable(self._down or "lost the connection to Triton", RETRY_AFTER_SECONDS)
        return call.result()

    def _place(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the array, or a copy in shared memory if it should be sent that way."""
        if self._scratch is None or array.nbytes <= _INLINE_BYTES or self._offset(array) is not None:
            return array
        copy = self._scratch.take(array.shape, array.dtype)
        if copy is None:
            return array
        copy[...] = array
        return copy

    def _room(self, outputs: Mapping[str, tuple[Shape, npt.DTypeLike]]) -> dict[str, npt.NDArray[Any]]:
        """Allocate arrays in shared memory for all outputs, or for none."""
        room: dict[str, npt.NDArray[Any]] = {}
        if self._scratch is not None:
            for name, (shape, dtype) in outputs.items():
                array = self._scratch.take(shape, dtype)
                if array is None:
                    return {}
                room[name] = array
        return room

    def _offset(self, array: npt.NDArray[Any]) -> int | None:
        return None if self._memory is None else self._memory.offset_of(array)

    def _input(self, name: str, array: npt.NDArray[Any]) -> InferInput:
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        offset = self._offset(array)
        if offset is None or self._memory is None:
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
        else:
            tensor.set_shared_memory(self._memory.name, array.nbytes, offset)
        return tensor

    def _output(self, name: str, array: npt.NDArray[Any] | None) -> InferRequestedOutput:
        output = InferRequestedOutput(name)
        if array is not None and self._memory is not None:
            output.set_shared_memory(self._memory.name, array.nbytes, self._memory.offset_of(array))
        return output
