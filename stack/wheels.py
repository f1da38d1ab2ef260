"""Wheels that are unpacked instead of installed: what they pin would clash with the packages of the environment."""

import subprocess
import sys
from pathlib import Path


class WheelMissing(Exception):
    """pip cannot download a wheel; its own message is on standard error."""


def download(requirement: str, sha256: str, folder: Path) -> Path:
    """Download one wheel without its dependencies, and check its hash.

    Args:
        requirement: `name==version`.
        sha256: hexadecimal digest of the wheel.
        folder: gets the wheel; must hold no other.

    Raises:
        WheelMissing
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    try:
        subprocess.run([*pip, "--requirement", str(requirements), "--dest", str(folder)], check=True)
    except (subprocess.CalledProcessError, OSError) as error:
        raise WheelMissing(f"pip cannot download {requirement}") from error
    (wheel,) = folder.glob("*.whl")
    return wheel
