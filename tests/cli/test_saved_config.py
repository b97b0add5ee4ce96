"""Every stage keeps its options as a file that `--config` reads: to go on, or to repeat it."""

import argparse
import tomllib

import pytest

from experiments.run_contents import differences
from fishjax import io
from fishjax.cli import main
from fishjax.cli.config_file import open_directory

from .stages import fresh


@pytest.mark.parametrize("name", ["score", "text", "generate", "generations", "fisher", "adapters"])
def test_the_saved_options_repeat_a_run_and_go_on_with_it(
    name, stages, kept, monkeypatch, tmp_path
):
    kept.share(monkeypatch)
    expected = stages.undisturbed(name)
    command, config = stages.words(name, tmp_path)[0], expected / io.CONFIG_NAME
    repeated = fresh(tmp_path, "repeated")
    assert main([command, "--config", str(config), "--out", str(repeated)]) == 0
    assert not differences(repeated, expected)
    manifest = (repeated / io.MANIFEST_NAME).read_bytes()
    assert main([command, "--config", str(repeated / io.CONFIG_NAME)]) == 0
    assert not differences(repeated, expected)
    assert (repeated / io.MANIFEST_NAME).read_bytes() == manifest


def test_any_text_can_be_an_option(tmp_path):
    values = {
        "out": str(tmp_path / "run"),
        "stop": ["\n", '"', "\\", "\x7f", "\u2028", "\U0001f41f", "'", "#", ""],
        "data": "a = b\t[c]",
        "top_p": 1e-05,
        "max_tokens": 3,
        "chat": True,
        "limit": None,
    }
    args = argparse.Namespace(**values, config="x", action=None, module="y")
    with open_directory(args, {"settings": {"schema_version": io.SCHEMA_VERSION}}) as directory:
        text = (directory / "config.toml").read_text()
    expected = {n.replace("_", "-"): v for n, v in values.items() if v is not None}
    assert tomllib.loads(text) == expected
