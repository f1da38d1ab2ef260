"""The kit runs where PyTorch, transformers, onnx and onnxruntime are installed, and no package of the gateway's."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
ABSENT = (
    "tritonclient",
    "pydantic",
    "pydantic_settings",
    "rapidjson",
    "grpc",
    "google.protobuf",
    "redis",
    "prometheus_client",
    "onnx_ir",
    "onnxscript",
    "cv2",
    "PIL",
    "samserve.gateway",
    "samserve.adapters",
)
PROGRAM = f"""
import importlib, pkgutil, sys

ABSENT = {ABSENT!r}

def absent(name):
    return any(name == each or name.startswith(each + ".") for each in ABSENT)

class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if absent(name) else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
try:
    import PIL
except ModuleNotFoundError:
    pass
else:
    sys.exit("nothing is blocked")
import benchmarks.gpu
names = [module.name for module in pkgutil.iter_modules(benchmarks.gpu.__path__)]
for name in names:
    importlib.import_module("benchmarks.gpu." + name)
print(*names)
sys.exit(str(sorted(filter(absent, sys.modules))) if any(map(absent, sys.modules)) else 0)
"""


def test_every_module_imports_without_the_gateways_packages() -> None:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "service")])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {"encoder", "decoder", "parity", "profile", "stages"} <= set(done.stdout.split())
