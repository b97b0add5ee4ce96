"""The house: imports only point left, and files stay small."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent / "fishjax"

# What each room may import. Leaves are imported by nothing in the core.
ALLOWED = {
    "types": set(),
    "trees": set(),
    "compilation": set(),
    "capture": {"types", "trees"},
    "operators": {"types", "trees"},
    "gradients": {"types", "trees", "capture", "operators"},
    "likelihoods": {"types", "trees"},
    "estimators": {"types", "trees", "capture", "operators", "gradients", "likelihoods"},
    "scores": {"types", "trees", "capture", "operators", "gradients"},
    "metrics": set(),
    "models": {"types", "trees", "compilation"},
    "tasks": {"types", "trees", "models"},
    "io": {"types", "trees", "operators", "estimators"},
    "plots": {"types", "trees"},
    "bundled": set(),
    "cli": {
        *(
            "types",
            "trees",
            "compilation",
            "capture",
            "operators",
            "gradients",
            "scores",
            "metrics",
        ),
        *("models", "tasks", "io", "plots", "bundled", "likelihoods", "estimators"),
    },
    "runs": {"cli", "io"},
    "__main__": {"cli"},
}


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path):
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ("fishjax", *package)[: len(package) + 2 - node.level] if node.level else ()
            module = ".".join((*base, *((node.module or "").split(".") if node.module else ())))
            names = [f"{module}.{a.name}" for a in node.names] if module == "fishjax" else [module]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "fishjax" and len(parts) > 1 and parts[1] != "__version__":
                yield parts[1]


FILES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT or p.name != "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_left(path):
    here = room(path)
    assert here in ALLOWED, f"new room {here!r}: say in ALLOWED what it may import"
    wrong = set(imported_rooms(path)) - ALLOWED[here] - {here}
    assert not wrong, f"{here} may not import {sorted(wrong)}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_small(path):
    assert len(path.read_text().splitlines()) <= 400


# Libraries that read pickles or code, and calls that run what they are given.
EXECUTING_MODULES = {
    "cloudpickle", "dill", "joblib", "marshal", "pickle", "runpy", "shelve", "tensorflow", "torch",
    "transformers", "yaml",
}  # fmt: skip
EXECUTING_CALLS = {
    "eval", "exec", "compile", "__import__", "np.load", "numpy.load", "jnp.load",
    "pandas.read_pickle", "jinja2.Environment", "jinja2.Template", "os.system", "subprocess.run",
    "subprocess.Popen",
}  # fmt: skip
EXECUTING_ARGUMENTS = {"allow_pickle", "trust_remote_code"}


def executing(source):
    """What in a module could run code that a file holds."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [(node.module or "").split(".")[0]]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            names = [keyword.arg for keyword in node.keywords] + [called]
            if called.endswith("import_module") and isinstance(node.args[0], ast.Constant):
                names.append(node.args[0].value)
        forbidden = EXECUTING_MODULES | EXECUTING_CALLS | EXECUTING_ARGUMENTS
        yield from (name for name in names if name in forbidden)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_can_execute_code(path):
    """Checkpoints and rows of strangers are data: nothing unpickles or evaluates them."""
    assert not list(executing(path.read_text()))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from torch import load", "import yaml.loader", "eval(text)",
        "np.load(path)", "read(path, allow_pickle=True)", "importlib.import_module('dill')",
        "def f():\n  import cloudpickle", "jinja2.Environment()", "m(trust_remote_code=flag)",
    ],
)  # fmt: skip
def test_what_executes_is_found(source):
    assert len(list(executing(source))) == 1
