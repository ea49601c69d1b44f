"""Our top-level names are ours: `schema` and `worker` are also distributions on the package index."""

import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
OURS = ("gateway", "core", "worker", "schema", "infra")


@pytest.mark.parametrize("name", OURS)
def test_a_top_level_package_is_ours(name: str) -> None:
    module = import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve() == ROOT / name / "__init__.py"


def test_no_distribution_of_these_names_is_installed_or_pinned() -> None:
    installed = {distribution.metadata["Name"].lower() for distribution in metadata.distributions()}
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    for name in OURS:
        assert name not in installed
        assert name not in pinned


def test_retry_imports_nothing_heavy() -> None:
    heavy = ["aiohttp", "botocore", "pydantic", "structlog"]
    code = f"import sys, infra.retry; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


def test_the_codec_leaves_no_nameless_module_behind() -> None:
    """It broke `import torch` in every worker that received a job before the model was loaded."""
    code = (
        "import inspect, sys\nfrom schema import pb\n"
        "job = pb.ImageJob(image=pb.ImageRef(generation_id='gen_1'))\npb.ImageJob().parse(bytes(job))\n"
        "assert '' not in sys.modules\ninspect.getframeinfo(sys._getframe(0))\nprint('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.strip() == "fine", done.stderr
