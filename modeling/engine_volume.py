"""A volume with engines for several GPUs, TensorRT versions and models, each in its own folder."""

import os
import re
import shutil
from pathlib import Path

from samserve.domain import manifest as manifest_file
from samserve.domain.manifest import ModelManifest


def engine_key(manifest: ModelManifest) -> Path:
    """`<GPU>/<builder and version>/<fingerprint>`, such as `NVIDIA-L4/tensorrt-11.0.0/sha256-45d0...`.

    Engines run on the kind of GPU and with the version that they were compiled by; portable ones are under the compute
    capabilities that they were compiled for.

    Args:
        manifest: of a repository with engines.
    """
    engines = manifest.provenance["engines"]
    capabilities = engines["compute_capabilities"]
    portable = "portable" if isinstance(capabilities, str) else "-".join(f"sm{each}" for each in capabilities)
    parts = (engines["gpu"] or portable, engines["builder"], manifest.fingerprint)
    return Path(*(re.sub(r"[^\w.-]+", "-", part) for part in parts))


def file_repository(built: Path, volume: Path) -> Path:
    """Move a repository with engines into its folder of the volume. One that is there already stays: it may be served.

    Args:
        built: on the same file system.

    Returns:
        The folder.
    """
    place = volume / engine_key(ModelManifest.read(built))
    if (place / manifest_file.FILE_NAME).is_file():
        shutil.rmtree(built)
        return place
    # A pod that mounted the path too early has created empty folders.
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    os.rename(built, place)
    return place
