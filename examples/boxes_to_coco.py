"""Turn a detector's boxes into instance masks: COCO results in, COCO results with `segmentation` out.

python examples/boxes_to_coco.py photo.jpg --boxes detections.json --out segmented.json
"""

import argparse
import json
from pathlib import Path

from samserve.client import Client, Detection, Prompt


def main() -> None:
    parser = argparse.ArgumentParser(description="Turn a detector's boxes into instance masks.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--boxes", type=Path, required=True, help='[{"bbox": [x, y, w, h], "category_id", "score"}]')
    parser.add_argument("--out", type=Path, default=Path("segmented.json"))
    parser.add_argument("--server", default="localhost:50051")
    arguments = parser.parse_args()

    prompts = []
    for entry in json.loads(arguments.boxes.read_text()):
        x, y, width, height = entry["bbox"]
        given = Detection(entry["category_id"], entry["score"])
        prompts.append(Prompt(box=[x, y, x + width, y + height], detection=given))

    with Client(arguments.server) as client:
        # A box is rarely ambiguous, so request one mask instead of three.
        segmentations = client.segment_many(arguments.image, prompts, multimask_output=False)

    results = []
    for segmentation in segmentations:
        (rle,), (box,), detection = segmentation.rles, segmentation.boxes.tolist(), segmentation.detection
        results.append(
            {
                "image_id": arguments.image.stem,
                "category_id": detection.category_id if detection else None,
                "score": detection.score if detection else None,
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            }
        )
    arguments.out.write_text(json.dumps(results))
    print(f"wrote {len(results)} masks to {arguments.out}")


if __name__ == "__main__":
    main()
