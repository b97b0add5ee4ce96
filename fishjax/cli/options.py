"""Options that several commands share, each said once."""

import argparse
import importlib

__all__ = [
    "COMBINED_SCORES",
    "adapter_option",
    "batch_option",
    "checkpoint_option",
    "corpus_option",
    "data_file",
    "dtype_option",
    "length_option",
    "limit_option",
    "mesh_option",
    "model_option",
    "natural",
    "out_option",
    "output_options",
    "positive",
    "prompt_options",
    "question_option",
    "quiet_option",
    "seed_option",
]

COMBINED_SCORES = (
    "epistemic",
    "aleatoric",
    "maximum_probability",
    "perplexity",
    "sequence_epistemic",
    "semantic_entropy",
    "p_true",
)
"""What `--combine` without names combines: one score of every family, where the run has it."""


def positive(text: str) -> int:
    """A number of things, at least one."""
    number = natural(text)
    if number == 0:
        raise argparse.ArgumentTypeError("0: expected a positive integer")
    return number


def natural(text: str) -> int:
    """A number of things."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a non-negative integer")
    return number


def seed(text: str) -> int:
    """What JAX takes as 32 bits; of a larger number it would use the low ones only."""
    number = natural(text)
    if number >= 2**32:
        raise argparse.ArgumentTypeError(f"{text}: expected an integer below 2^32 = {2**32}")
    return number


def data_file(text: str) -> str:
    """A file's path; one on the Hugging Face hub is fetched."""
    if not text.startswith("hf://"):
        return text
    models = importlib.import_module("fishjax.models")  # not for --help
    try:
        return str(models.data_file(text))
    except models.CheckpointError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def question_option(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The question file."""
    parser.add_argument(
        "--data",
        type=data_file,
        required=required,
        help="the task's file of questions; hf://datasets/org/name/FILE for one on the hub",
    )


def model_option(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The checkpoint."""
    parser.add_argument(
        "--model",
        required=required,
        help="checkpoint file or directory, or org/name[@revision] of the Hugging Face hub",
    )


def adapter_option(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Adapters beside the checkpoint."""
    parser.add_argument("--adapter", help=f"directory of fishjax finetune, or LoRA of PEFT{more}")


def corpus_option(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Plain text."""
    parser.add_argument(
        "--data",
        type=data_file,
        required=required,
        help="text with <|endoftext|> lines, or JSONL with text; or .gz",
    )


def prompt_options(parser: argparse.ArgumentParser) -> None:
    """From questions to prompts."""
    parser.add_argument("--shots", type=natural, default=0, help="solved examples in each prompt")
    parser.add_argument(
        "--shots-data", type=data_file, help="file of the examples; the task's own if absent"
    )
    parser.add_argument(
        "--chat", action="store_true", help="prompts in the model's own chat template"
    )


def out_option(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Where the run goes."""
    parser.add_argument(
        "--out", required=required, help="directory of the run; resumes what it holds"
    )


def limit_option(parser: argparse.ArgumentParser, of: str) -> None:
    """How much of the data."""
    parser.add_argument("--limit", type=positive, help=f"only the first {of}")


def seed_option(parser: argparse.ArgumentParser, of: str) -> None:
    """What is drawn."""
    parser.add_argument("--seed", type=seed, default=0, help=f"of {of} (%(default)s)")


def dtype_option(parser: argparse.ArgumentParser, kept: str) -> None:
    """The precision of the model; `kept` stays float32."""
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help=f"the model computes in it; {kept} stay float32 (%(default)s)",
    )


def batch_option(parser: argparse.ArgumentParser, default: int, of: str) -> None:
    """Rows of a batch."""
    parser.add_argument("--batch", type=positive, default=default, help=f"{of} (%(default)s)")


def length_option(parser: argparse.ArgumentParser) -> None:
    """Of a window of text."""
    parser.add_argument("--length", type=positive, default=256, help="tokens (%(default)s)")


def checkpoint_option(parser: argparse.ArgumentParser, of: str) -> None:
    """How often a run stores where it is."""
    parser.add_argument("--checkpoint-every", type=positive, default=50, help=f"{of} (%(default)s)")


def mesh_option(parser: argparse.ArgumentParser) -> None:
    """Several devices."""
    parser.add_argument("--mesh", help="devices, as data=4,model=2; one device if absent")


def quiet_option(parser: argparse.ArgumentParser) -> None:
    """Say less."""
    parser.add_argument("--quiet", action="store_true", help="print only warnings and errors")


def output_options(parser: argparse.ArgumentParser) -> None:
    """Draw and say less."""
    parser.add_argument("--no-plots", action="store_true", help="write no plots")
    quiet_option(parser)
