"""`kill -9` at random moments, then the same command: the rows of an uninterrupted run."""

import random
import signal
import subprocess
import sys
import time

from fishjax.cli import main


def size_of(path):
    return path.stat().st_size if path.exists() else 0


def test_killed_runs_resume_to_the_same_bytes(finished_run, tiny, tmp_path, capsys):
    expected = (finished_run / "rows.jsonl").read_bytes()
    out = tmp_path / "out"
    path = out / "rows.jsonl"
    arguments = tiny.score_arguments(out, "--no-plots", "--per-token")
    rng = random.Random(0)
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-m", "fishjax", *arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        start = size_of(path)
        # From the first growth on a random few milliseconds: inside any batch, or between two.
        while child.poll() is None and size_of(path) == start:
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.05))
        child.send_signal(signal.SIGKILL)
        child.wait()
    path.write_bytes(path.read_bytes()[:-7])  # and a power cut: a torn last line
    assert main(arguments) == 0
    assert path.read_bytes() == expected
    output = capsys.readouterr()
    assert "plan: 12 questions, 34 answers" in output.err
    assert "resuming after " in output.err
    assert "memory: weights" in output.err
    assert "12 questions, accuracy" in output.out
