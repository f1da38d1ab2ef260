"""The checkpoints that Meta and MobileSAM's authors published."""

from collections.abc import Mapping
from types import MappingProxyType

# Meta publishes no SHA-256; the digits in its file names are the first ones of the MD5. Many projects that download the
# files from Meta pin the same hashes (micro_sam's util.py and open-edge-platform/model_api#352 among them).
PUBLISHED_SHA256: Mapping[str, str] = MappingProxyType(
    {
        "sam_vit_h_4b8939.pth": "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        "sam_vit_l_0b3195.pth": "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        "sam_vit_b_01ec64.pth": "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        "mobile_sam.pt": "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
    }
)
