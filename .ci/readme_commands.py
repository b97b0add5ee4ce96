"""Runs every command of the README's `bash` blocks, as written, from the repository's root.

`make test` is skipped: CI has just run it.
"""

import pathlib
import re
import subprocess
import sys
import time

SKIP = {"make test"}


def commands(text: str) -> list[str]:
    """The lines of all `bash` blocks, without comments, continuation lines joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    stripped = (line.split(" #")[0].strip() for line in lines)
    return [line for line in stripped if line and not line.startswith("#")]


def main() -> int:
    found = commands(pathlib.Path(sys.argv[1]).read_text())
    if not found:
        print("error: the README has no bash block", file=sys.stderr)
        return 1
    for command in found:
        if command in SKIP or command.startswith(("git clone", "cd ")):
            print(f"-- skipped: {command}", flush=True)
            continue
        print(f"-- {command}", flush=True)
        start = time.monotonic()
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True)
        print(f"-- {time.monotonic() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
