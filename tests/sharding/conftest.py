"""Worker scripts run in processes of their own: this one has a single device."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def start(script, *args, devices=8):
    """Starts a worker with this many CPU devices; its last words are JSON lines."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", f"tests.sharding.{script}", *map(str, args)],
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """The JSON lines of a worker."""
    out, err = process.communicate(timeout=540)
    assert process.returncode == 0, err[-4000:]
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


@pytest.fixture(scope="session")
def worker():
    """`worker(script, *args)`: the JSON lines it printed; every call is run once."""
    reports = {}

    def rows(*call):
        if call not in reports:
            reports[call] = finish(start(*call))
        return reports[call]

    return rows
