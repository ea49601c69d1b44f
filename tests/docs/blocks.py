"""The code blocks of the README files and of docs/, and `just` for those that call it."""

import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block. `file` is relative to the repository."""

    file: str
    language: str
    text: str

    @property
    def first(self) -> str:
        """Its first line without comment, by which tests name it."""
        return re.split(r"\s+(?:#|\\$)", self.text.splitlines()[0])[0].strip()


def texts() -> list[Path]:
    """Every Markdown file of the repository. Without git (an unpacked archive): those up to two folders deep."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
    found = [ROOT / name for name in listed.stdout.split()]
    return sorted(found or {path for pattern in ("*.md", "*/*.md", "*/*/*.md") for path in ROOT.glob(pattern)})


def blocks() -> Iterator[Block]:
    """All blocks of the READMEs and of docs/, in order."""
    for path in texts():
        if path.name != "README.md" and path.relative_to(ROOT).parts[0] != "docs":
            continue
        for language, text in _FENCED.findall(path.read_text("utf-8")):
            yield Block(file=str(path.relative_to(ROOT)), language=language, text=text)


def recipe(name: str) -> str:
    """A recipe of the Justfile as a script for bash, its arguments in "$@". Raises KeyError for one that is none."""
    text = (ROOT / "Justfile").read_text("utf-8")
    values = {match[1]: _joined(match[2]) for match in re.finditer(r"^(\w+) := (.+)$", text, re.MULTILINE)}
    for key, value in list(values.items()):
        values[key] = value.replace("{python}", values.get("python", ""))
    found = re.search(rf"^{re.escape(name)}(?: [^:\n]*)?:[^\n]*\n((?:    [^\n]*\n)+)", text, re.MULTILINE)
    if found is None:
        raise KeyError(f"the Justfile has no recipe {name!r}")
    lines = [line.strip().removeprefix("@") for line in found[1].splitlines()]
    return "\n".join(re.sub(r"\{\{ (\w+) \}\}", lambda each: values[each[1]], line) for line in lines)


def _joined(expression: str) -> str:
    """`python + " -m infra.local"` and `"text"`, which is all that the recipes of the stack use."""
    parts = [part.strip() for part in expression.split(" + ")]
    return "".join(part.strip('"') if part.startswith('"') else f"{{{part}}}" for part in parts)


def tools(folder: Path) -> str:
    """A PATH with `just`, made of the Justfile's recipes, this Python, and a pip that installs nothing."""
    folder.mkdir(exist_ok=True)
    just = f"""#!/usr/bin/env bash
exec {shlex.quote(sys.executable)} -P {shlex.quote(str(Path(__file__)))} "$@"
"""
    pip = """#!/usr/bin/env bash
[ "$*" = "install rust-just" ] || { echo "unexpected: pip $*" >&2; exit 9; }
"""
    for name, script in (("just", just), ("pip", pip)):
        path = folder / name
        path.write_text(script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"


def run(text: str, *, cwd: Path, env: Mapping[str, str], timeout_s: float = 200) -> "subprocess.CompletedProcess[str]":
    """As somebody pastes it: every line must succeed."""
    command = ["bash", "-euo", "pipefail", "-c", text]
    return subprocess.run(
        command, cwd=cwd, env=dict(env), capture_output=True, text=True, timeout=timeout_s, check=False
    )


def main(arguments: list[str]) -> int:
    """`just NAME ARGUMENTS…` without what installs."""
    script = recipe(arguments[0]).replace(".venv/bin/python", shlex.quote(sys.executable))
    return subprocess.run(["bash", "-euo", "pipefail", "-c", script, "just", *arguments[1:]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
