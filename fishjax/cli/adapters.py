"""`--adapter`: what `fishjax finetune` left, or a directory of PEFT, beside a model's weights."""

import dataclasses
import hashlib
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fishjax import io
from fishjax.cli.errors import InputError
from fishjax.io.checkpoints import load_tree
from fishjax.models import LanguageModel, LoraConfig, adapted, load_adapter
from fishjax.trees import flatten_with_paths

__all__ = ["Adapter", "adapter_hash", "find_adapter"]

_PEFT_CONFIG, _TREE = "adapter_config.json", "structure.json"
_EXPECTED = (
    "expected the directory of a finished `fishjax finetune`, or one of PEFT with "
    f"{_PEFT_CONFIG} and adapter_model.safetensors"
)


class Adapter(NamedTuple):
    """Adapters that were found, not read yet.

    Attributes:
      path: of the stored tree, or of the directory of PEFT.
      manifest: of the `fishjax finetune` that wrote them, None for an adapter from elsewhere.
    """

    path: pathlib.Path
    manifest: dict[str, Any] | None

    def beside(self, model: LanguageModel) -> LanguageModel:
        """The model with the adapters beside its weights.

        Raises:
          CheckpointError: a directory of PEFT cannot be used with this model.
          InputError: the adapters were trained on another model, or do not fit.
          RowsError: the stored tree is damaged.
        """
        if self.manifest is not None:
            _refuse_other_base(self.path, self.manifest, model)
        if _is_peft(self.path):
            return adapted(model, *load_adapter(self.path, model))
        assert self.manifest is not None  # find_adapter takes no tree without one
        # on no device of their own: the weights may be spread over several
        tree = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), load_tree(self.path))
        try:
            return adapted(model, _lora_of(self.manifest), tree)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{self.path}: {error}; the adapters or the {io.MANIFEST_NAME} beside them were "
                "changed: copy the run again"
            ) from None


def find_adapter(directory: pathlib.Path) -> Adapter:
    """Looks what kind of adapter a directory holds, before a model is loaded.

    Args:
      directory: of a run of `fishjax finetune`, its `adapters` or `peft`, or any of PEFT.

    Raises:
      InputError: it holds none, or the run is of another command, trained all parameters or is not
        finished.
      RowsError: the run's manifest is damaged.
    """
    if not directory.is_dir():
        raise InputError(
            f"no adapter at {directory}: {_EXPECTED}; adapters of the Hugging Face hub are not "
            "fetched, download the directory and pass its path"
        )
    if _is_peft(directory):
        return Adapter(directory, _manifest_beside(directory, io.PEFT_NAME))
    if (directory / _TREE).exists():
        manifest = _manifest_beside(directory, io.ADAPTERS_NAME)
        if manifest is None:
            raise InputError(
                f"{directory} holds arrays and no {io.MANIFEST_NAME} of a `fishjax finetune` is "
                "beside it to say which adapters they are: give the directory of the whole run"
            )
        return Adapter(directory, manifest)
    if not (directory / io.MANIFEST_NAME).exists():
        raise InputError(f"{directory} holds no adapter: {_EXPECTED}")
    return Adapter(directory / io.ADAPTERS_NAME, _finished(directory))


def adapter_hash(directory: pathlib.Path | None) -> str | None:
    """SHA-256, in hex, of what an adapter is."""
    if directory is None:
        return None
    digest, found = hashlib.sha256(), find_adapter(directory)
    if _is_peft(found.path):
        for file in sorted(found.path.glob("adapter_*")):
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()
    assert found.manifest is not None
    digest.update(repr(_lora_of(found.manifest)).encode())
    paths, leaves, _ = flatten_with_paths(load_tree(found.path))
    for path, leaf in zip(paths, leaves, strict=True):
        array = np.ascontiguousarray(leaf)
        digest.update(repr((path, array.shape, array.dtype.str)).encode() + array.tobytes())
    return digest.hexdigest()


def _is_peft(directory: pathlib.Path) -> bool:
    return (directory / _PEFT_CONFIG).exists()


def _manifest_beside(directory: pathlib.Path, name: str) -> dict[str, Any] | None:
    """Of the fine-tuning that a directory of this name belongs to, None where it does not."""
    folder = directory.absolute().parent
    if directory.absolute().name != name or not (folder / io.MANIFEST_NAME).exists():
        return None
    manifest = io.read_manifest(folder)
    return manifest if manifest["settings"].get("command") == "finetune" else None


def _finished(directory: pathlib.Path) -> dict[str, Any]:
    """The manifest of a run that left adapters."""
    manifest = io.read_manifest(directory)
    settings = manifest["settings"]
    if settings.get("command") != "finetune":
        raise InputError(f"{directory} is no run of `fishjax finetune`: {_EXPECTED}")
    if settings.get("lora") is None:
        raise InputError(
            f"{directory} trained all parameters (--full) and has no adapters: leave out "
            f"--adapter and give --model {directory / io.MODEL_NAME}"
        )
    if not (directory / io.ADAPTERS_NAME).is_dir():
        raise InputError(
            f"the fine-tuning in {directory} is not finished: run the same `fishjax finetune` "
            "again, it goes on where it stopped"
        )
    return manifest


def _refuse_other_base(path: pathlib.Path, manifest: dict[str, Any], model: LanguageModel) -> None:
    """Weights of the same shapes would take any adapter and compute nonsense."""
    trained_on = manifest["settings"].get("model_sha256")
    if trained_on != model.fingerprint:
        raise InputError(
            f"the adapters in {path} were trained on {manifest.get('model')} (SHA-256 "
            f"{str(trained_on)[:12]}), and the model is {model.name} ({model.fingerprint[:12]}): "
            "give --model the checkpoint that was fine-tuned, not one with the adapters merged in"
        )


def _lora_of(manifest: dict[str, Any]) -> LoraConfig:
    """What the adapters are.

    Raises:
      ValueError: the manifest says something else than `fishjax finetune` writes.
    """
    stored: Any = manifest["settings"].get("lora")
    names = {field.name for field in dataclasses.fields(LoraConfig)}
    if not isinstance(stored, dict) or stored.keys() != names:
        raise ValueError(f"lora is {stored!r}: expected {', '.join(sorted(names))}")
    values: dict[str, Any] = stored | {"targets": tuple(stored["targets"])}
    return LoraConfig(**values)
