"""Empty stand-ins for packages that vLLM for CPUs asks for, does not use there, and is broken by.

The torchvision and torchaudio of PyPI do not fit PyTorch's CPU build, so that `import vllm` fails; torchcodec and
triton are large and unused. For every line NAME==VERSION+none of a constraints file this writes a wheel with nothing in
it but its name, which pip prefers, as that is the version asked for.

    python scripts/stub_wheels.py constraints-vllm.txt build/stubs
"""

import argparse
import base64
import hashlib
import re
import zipfile
from pathlib import Path

STAND_IN = re.compile(r"^([\w-]+)==([\w.]+\+none)$", re.MULTILINE)


def write_wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel without files."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: an empty stand-in\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: marl-llm\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("constraints", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, version in STAND_IN.findall(args.constraints.read_text()):
        write_wheel(args.folder, name, version)


if __name__ == "__main__":
    main()
