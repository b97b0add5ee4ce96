"""Executes every percent-format notebook of a folder, as a plain script.

Command: `make notebooks`. Stops at the first cell that fails, with its traceback.
"""

import pathlib
import subprocess
import sys


def main() -> int:
    """Runs the notebooks in order of their names."""
    notebooks = sorted(pathlib.Path(sys.argv[1]).glob("*.py"))
    if not notebooks:
        print(f"error: no notebooks in {sys.argv[1]}", file=sys.stderr)
        return 1
    for path in notebooks:
        print(f"== {path}", flush=True)
        subprocess.run([sys.executable, str(path)], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
