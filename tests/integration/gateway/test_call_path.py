"""A warm call passes few functions of the gateway."""

import gc
import sys
import traceback
from pathlib import Path
from types import CoroutineType
from typing import Any

import onnxruntime
import pytest

import samserve
from samserve.v1 import segmentation_pb2 as pb
from tests.support.gateway import PNG_CLICK, photo, serving

MAX_FRAMES = 9
PROJECT = str(Path(samserve.__file__).parent)


def project_frames() -> list[str]:
    """Functions of the project that wait for this one: suspended coroutines, and callers in this thread."""
    # By type and not by `isinstance`, for which some objects run code of their own.
    coroutines = [thing for thing in gc.get_objects() if type(thing) is CoroutineType]
    codes = [coroutine.cr_code for coroutine in coroutines if coroutine.cr_frame is not None]
    codes += [frame.f_code for frame, _ in traceback.walk_stack(sys._getframe())]
    return [code.co_qualname for code in codes if code.co_filename.startswith(PROJECT)]


async def test_a_warm_segment_passes_few_functions_between_grpc_and_the_decoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames: list[list[str]] = []
    run = onnxruntime.InferenceSession.run

    def look_and_run(session: Any, outputs: Any, inputs: Any) -> Any:
        if "point_coords" in inputs:
            frames.append(project_frames())
        return run(session, outputs, inputs)

    async with serving() as served:
        request = pb.SegmentRequest(image=pb.Image(data=photo(1)), prompts=[PNG_CLICK])
        await served.stub.Segment(request)
        monkeypatch.setattr(onnxruntime.InferenceSession, "run", look_and_run)
        assert (await served.stub.Segment(request)).cached
    (warm,) = frames
    assert {"SegmentationServicer.Segment", "Segmenter.segment"} <= set(warm)
    assert len(warm) <= MAX_FRAMES, warm
