"""Build the served models: convert a SAM checkpoint to a model repository, checked by a parity gate.

python build_engines.py --model vit_h --checkpoint sam_vit_h_4b8939.pth --output models --target tensorrt
python build_engines.py --model tiny --output model_repository --verify
python build_engines.py --text-model clip-vit-base-patch32 --output models --target cpu
"""

import sys

from modeling.build_command import main

if __name__ == "__main__":
    sys.exit(main())
