"""The arguments of every command."""

import argparse

from fishjax.cli.options import (
    COMBINED_SCORES,
    adapter_option,
    batch_option,
    checkpoint_option,
    corpus_option,
    dtype_option,
    length_option,
    limit_option,
    mesh_option,
    model_option,
    natural,
    out_option,
    output_options,
    positive,
    prompt_options,
    question_option,
    quiet_option,
    seed_option,
)

__all__ = [
    "demo_arguments",
    "evaluate_arguments",
    "finetune_arguments",
    "fisher_arguments",
    "generate_arguments",
    "inspect_arguments",
    "score_arguments",
    "tasks_arguments",
]


def score_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fishjax score`."""
    model_option(parser)
    parser.add_argument("--task", help="see fishjax tasks: truthfulqa_mc1, multiple_choice, ...")
    question_option(parser, required=False)
    parser.add_argument(
        "--generations", help="score these answers instead: directory of fishjax generate"
    )
    prompt_options(parser)
    out_option(parser)
    limit_option(parser, "questions of the file, of text documents")
    parser.add_argument(
        "--max-characters", type=positive, metavar="N",
        help="of text: only the first N of every document, a short trial on long ones",
    )  # fmt: skip
    seed_option(parser, "bootstrap, folds and solved examples")
    dtype_option(parser, "statistics")
    parser.add_argument(
        "--batch-tokens",
        type=positive,
        default=8192,
        help="tokens of a batch with its padding; lower it to save memory (%(default)s)",
    )
    parser.add_argument(
        "--per-token",
        action="store_true",
        help="also scores from one gradient per token of the chosen answer (slower)",
    )
    parser.add_argument(
        "--parameters", help="gradients of these only, as 'attention/*'; all if absent"
    )
    adapter_option(parser, ": their gradients, the base frozen")
    parser.add_argument(
        "--stride", type=positive, help="of text: new tokens of a window; the context if absent"
    )
    mesh_option(parser)
    output_options(parser)


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fishjax evaluate`."""
    parser.add_argument("directory", help="directory of a finished run")
    parser.add_argument(
        "--combine", nargs="*", metavar="SCORE",
        help="also a supervised combination of scores, cross-validated; without names those of "
        f"{', '.join(COMBINED_SCORES)} that the run has",
    )  # fmt: skip
    parser.add_argument(
        "--by", nargs="+", metavar="FIELD",
        help="also accuracy and AUROCs of groups of questions, by a field of their metadata, as "
        "subject; numbers with many values by quartile",
    )  # fmt: skip
    output_options(parser)


def demo_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fishjax demo`."""
    parser.add_argument("--out", default="runs/demo", help="directory of the demo (%(default)s)")
    output_options(parser)


def fisher_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fishjax fisher`."""
    actions = parser.add_subparsers(dest="action", metavar="merge")
    merge = actions.add_parser("merge", help="join the directories of workers (--shard)")
    merge.add_argument("directories", nargs="+", help="one of every worker")
    merge.add_argument("--out", required=True, help="directory of the merged run")
    _store_arguments(merge)
    model_option(parser, required=False)
    corpus_option(parser, required=False)
    out_option(parser, required=False)
    parser.add_argument(
        "--kind",
        choices=("kfac", "ekfac", "kpsvd", "diagonal", "isotropic", "low_rank"),
        default="kfac",
        help="approximation (%(default)s)",
    )
    parser.add_argument("--rank", type=positive, default=2, help="of kpsvd, low_rank (%(default)s)")
    parser.add_argument(
        "--targets",
        choices=("sampled", "empirical", "exact"),
        default="sampled",
        help="drawn from the model, those of the text, or all (%(default)s)",
    )
    parser.add_argument("--draws", type=positive, default=1, help="a sequence (%(default)s)")
    parser.add_argument(
        "--parameters", help="pattern of parameters, as 'attention/*'; all if absent"
    )
    length_option(parser)
    batch_option(parser, 8, "windows of a batch")
    parser.add_argument(
        "--chunk", type=positive, default=16, help="gradients at once (%(default)s)"
    )
    limit_option(parser, "documents")
    seed_option(parser, "drawn targets")
    dtype_option(parser, "statistics")
    mesh_option(parser)
    parser.add_argument("--shard", default="0/1", help="this worker's part, i/n (%(default)s)")
    parser.add_argument("--start", help="directory of a merged pass to go on from")
    checkpoint_option(parser, "batches")
    _store_arguments(parser)


def _store_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        choices=("full", "half", "truncated"),
        default="full",
        help="factors as they are, eigenvectors in half precision, or top eigenpairs and an "
        "isotropic remainder (%(default)s)",
    )
    parser.add_argument(
        "--store-rank", type=positive, default=32, help="of truncated (%(default)s)"
    )
    output_options(parser)


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fishjax inspect`."""
    parser.add_argument(
        "path", help="checkpoint, org/name of the hub, or directory of a finished `fishjax fisher`"
    )
    parser.add_argument(
        "--batch", type=positive, default=8, help="sequences of the estimate (%(default)s)"
    )
    parser.add_argument("--length", type=positive, help="tokens of the estimate; context or 4096")
    output_options(parser)


def finetune_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fishjax finetune`."""
    model_option(parser)
    corpus_option(parser)
    out_option(parser)
    parser.add_argument("--full", action="store_true", help="train all parameters, no adapters")
    parser.add_argument("--lora-rank", type=positive, help="of the adapters (8)")
    parser.add_argument(
        "--lora-targets", nargs="+", metavar="PATTERN",
        help="weights with adapters, as 'attention/*' mlp/up (attention/query attention/value)",
    )  # fmt: skip
    parser.add_argument("--lora-alpha", type=float, help="scale is alpha / rank (2 rank)")
    parser.add_argument("--lora-dropout", type=float, help="of the adapters' inputs (0)")
    parser.add_argument("--merge", action="store_true", help="also write a merged checkpoint")
    parser.add_argument("--steps", type=positive, default=200, help="(%(default)s)")
    batch_option(parser, 8, "windows of a batch")
    length_option(parser)
    limit_option(parser, "documents")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="highest (%(default)s)")
    parser.add_argument("--warmup", type=natural, default=0, help="steps (%(default)s)")
    parser.add_argument("--weight-decay", type=float, default=0.0, help="(%(default)s)")
    parser.add_argument(
        "--clip", type=float, default=1.0, help="of the gradient's global norm (%(default)s)"
    )
    seed_option(parser, "batches, adapters, dropout")
    dtype_option(parser, "parameters")
    checkpoint_option(parser, "steps")
    quiet_option(parser)


def generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fishjax generate`."""
    model_option(parser)
    parser.add_argument("--task", required=True, help="see fishjax tasks: triviaqa, open_qa, ...")
    question_option(parser)
    prompt_options(parser)
    out_option(parser)
    limit_option(parser, "questions of the file")
    parser.add_argument("--samples", type=natural, default=0, help="beside greedy (%(default)s)")
    parser.add_argument(
        "--ask", action="store_true", help="also P(True) and a stated confidence of each answer"
    )
    parser.add_argument("--temperature", type=float, default=1.0, help="of samples (%(default)s)")
    parser.add_argument("--top-p", type=float, default=1.0, help="of samples (%(default)s)")
    parser.add_argument("--max-tokens", type=positive, default=32, help="(%(default)s)")
    parser.add_argument(
        "--stop", nargs="*", default=["\n"], help="texts that end an answer (a line break)"
    )
    batch_option(parser, 16, "questions of a batch")
    seed_option(parser, "samples and solved examples")
    dtype_option(parser, "parameters")
    adapter_option(parser)
    mesh_option(parser)
    quiet_option(parser)


def tasks_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `fishjax tasks`."""
    del parser
