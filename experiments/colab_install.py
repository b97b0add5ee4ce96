"""What installing fishjax changes in an environment that has JAX already, as Google Colab's has.

Two claims. *Nothing moves*: with the packages Colab brings along in place (JAX at both ends of what
we support), `pip install --dry-run --report - fishjax[plots,frames]` names neither JAX, jaxlib,
NumPy nor any other package that is there, and neither PyTorch nor TensorFlow. *The lower bounds are
true*: with every direct dependency at the oldest version `pyproject.toml` allows, `score`, `fisher`
and `finetune` run. An environment whose flax is too old is looked at too; nothing is claimed of it.

Command: `make colab`, or `python -m experiments.colab_install --out experiments/results` on Python
3.12, which is Colab's (4 minutes, mostly downloads); `--only` runs single environments.
"""

import argparse
import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
WORLD = "fishjax/bundled/world"
NEVER = ("torch", "tensorflow", "tensorflow-cpu", "tf-nightly")


@dataclasses.dataclass(frozen=True)
class Environment:
    """Packages that are there before fishjax comes.

    Attributes:
      installed: name to version.
      claimed: whether nothing of it may move.
    """

    installed: dict[str, str]
    claimed: bool = True


_OLD = {
    "jax": "0.10.0", "jaxlib": "0.10.0", "numpy": "2.0.2", "scipy": "1.16.3", "flax": "0.12.1",
    "optax": "0.2.5", "orbax-checkpoint": "0.11.28", "einops": "0.8.1", "pandas": "2.2.2",
    "matplotlib": "3.10.0", "rich": "13.9.4", "jinja2": "3.1.6", "safetensors": "0.6.2",
    "tokenizers": "0.22.1",
}  # fmt: skip
_NEW = {
    "jax": "0.12.0.1", "jaxlib": "0.12.0.1", "numpy": "2.5.5", "scipy": "1.18.1",
    "flax": "0.12.12", "optax": "0.2.8", "orbax-checkpoint": "0.12.8", "einops": "0.8.2",
    "pandas": "3.1.1", "matplotlib": "3.11.2", "rich": "15.0.0", "jinja2": "3.1.6",
    "safetensors": "0.8.0", "tokenizers": "0.23.3",
}  # fmt: skip

ENVIRONMENTS = {
    "oldest JAX": Environment(_OLD),
    "newest JAX": Environment(_NEW),
    "oldest JAX, flax too old": Environment(_OLD | {"flax": "0.11.2"}, claimed=False),
}  # fmt: skip
LOWEST = "lower bounds"


def moved(environment: Environment, python: str) -> dict[str, Any]:
    """What pip would do to the environment."""
    with tempfile.TemporaryDirectory() as folder:
        pip = _environment(folder, python)
        pinned = [f"{name}=={version}" for name, version in environment.installed.items()]
        _run([*pip, "install", "--quiet", *pinned])
        before = _versions(pip)
        target = f"{ROOT}[plots,frames]"
        report = json.loads(
            _run([*pip, "install", "--quiet", "--dry-run", "--report", "-", target])
        )
    coming = {
        _canonical(item["metadata"]["name"]): item["metadata"]["version"]
        for item in report["install"]
    }
    return {
        "installed": environment.installed,
        "claimed": environment.claimed,
        "new": {n: v for n, v in sorted(coming.items()) if n not in before and n != "fishjax"},
        "moved": {n: [before[n], v] for n, v in sorted(coming.items()) if n in before},
        "never": [name for name in NEVER if name in coming],
    }


def lowest(python: str) -> dict[str, Any]:
    """Installs every direct dependency at its lower bound and runs three commands."""
    bounds = lower_bounds()
    with tempfile.TemporaryDirectory() as folder:
        pip = _environment(folder, python)
        pinned = [f"{name}=={version}" for name, version in bounds.items()]
        _run([*pip, "install", "--quiet", *pinned, str(ROOT)])
        found = _versions(pip)
        fishjax = [*pip[:-2], "-m", "fishjax"]
        questions, text = f"{WORLD}/conflict_4.jsonl", pathlib.Path(folder) / "text.txt"
        lines = (ROOT / questions).read_text().splitlines()[:20]
        text.write_text("\n<|endoftext|>\n".join(json.loads(line)["question"] for line in lines))
        corpus = ["--model", WORLD, "--data", str(text), "--length", "16"]
        commands = (
            ["score", "--model", WORLD, "--task", "multiple_choice", "--data", questions,
             "--limit", "4"],
            ["fisher", *corpus, "--kind", "ekfac"],
            ["finetune", *corpus, "--steps", "2"],
        )  # fmt: skip
        for command in commands:
            out = ["--out", f"{folder}/{command[0]}", "--quiet"]
            _run([*fishjax, *command, *out])
    return {
        "bounds": bounds,
        "resolved": {name: found[_canonical(name)] for name in bounds},
        "ran": [command[0] for command in commands],
    }


def lower_bounds() -> dict[str, str]:
    """Of the direct dependencies and of the extras that Colab users take."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    found = {}
    for requirement in [*project["dependencies"], *extras["plots"], *extras["frames"]]:
        match = re.match(r"([\w-]+)>=([\d.]+)", requirement)
        if match is None:
            raise ValueError(f"{requirement!r}: expected a lower bound, as in numpy>=2.0")
        found[match[1]] = match[2]
    return found


def _environment(folder: str, python: str) -> list[str]:
    """Makes a virtual environment; its pip."""
    _run([python, "-m", "venv", f"{folder}/venv"])
    return [f"{folder}/venv/bin/python", "-m", "pip"]


def _versions(pip: list[str]) -> dict[str, str]:
    listed = json.loads(_run([*pip, "list", "--format", "json"]))
    return {_canonical(item["name"]): item["version"] for item in listed}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--python", default=sys.executable, help="3.12, as in Colab")
    parser.add_argument("--only", nargs="+", choices=[*ENVIRONMENTS, LOWEST])
    args = parser.parse_args()
    found, broken = {}, []
    for name in args.only or [*ENVIRONMENTS, LOWEST]:
        if name == LOWEST:
            found[name] = lowest(args.python)
            print(f"{name}: {', '.join(found[name]['ran'])} run with {found[name]['resolved']}")
            continue
        found[name] = moved(ENVIRONMENTS[name], args.python)
        one = found[name]
        print(f"{name}: moves {one['moved'] or 'nothing'}; new: {', '.join(one['new'])}")
        if one["never"] or (one["moved"] and one["claimed"]):
            broken.append(name)
    if args.out is not None:
        text = json.dumps(found, indent=2) + "\n"
        (args.out / "colab_install.json").write_text(text)
    for name in broken:
        print(f"error: {name}: expected nothing to move and no other framework", file=sys.stderr)
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
