"""Compiled scoring steps, one for each batch shape, none compiled twice."""

import time
from typing import Any

import jax
from jax.sharding import Mesh

from fishjax.cli.errors import RunError
from fishjax.cli.meshes import on_mesh, spread
from fishjax.cli.step import Step, StepOutputs
from fishjax.compilation import compiler_options
from fishjax.tasks import BatchPlan
from fishjax.types import Params

__all__ = ["Programs", "batch_shape", "num_read_tokens"]

Shape = tuple[tuple[Any, ...], ...]


def batch_shape(batch: BatchPlan) -> Shape:
    """What decides which program runs a batch: the shapes of all its arrays."""
    return tuple((name, *array.shape) for name, array in sorted(batch.groups.items()))


def num_read_tokens(batch: BatchPlan) -> int:
    """Tokens of all answers' backward passes, padding included: a batch's cost."""
    names = {"prefix", "token_ids"} & batch.groups.keys()
    return batch.mask.size * sum(batch.groups[name].shape[-1] for name in names)


class Programs:
    """Compiles a step for each shape when it is first needed and keeps it.

    Attributes:
      compile_seconds: time spent compiling so far.
    """

    def __init__(self, step: Step, params: Params, mesh: Mesh | None = None):
        """Nothing is compiled yet; on a mesh questions are spread over its data axis."""
        self.compile_seconds = 0.0
        self._mesh = mesh
        self._step = jax.jit(step, compiler_options=compiler_options())
        self._params = params
        self._compiled: dict[Shape, Any] = {}

    def memory_bytes(self, batch: BatchPlan) -> int | None:
        """Bytes a batch takes beside the weights: temporaries, inputs and outputs.

        `None` where the backend does not say.
        """
        analysis = self._program(batch).memory_analysis()
        if analysis is None:
            return None
        weights = sum(leaf.nbytes for leaf in jax.tree.leaves(self._params))
        inputs = max(analysis.argument_size_in_bytes - weights, 0)
        return analysis.temp_size_in_bytes + analysis.output_size_in_bytes + inputs

    def costs(self, batch: BatchPlan) -> tuple[float, int]:
        """`(FLOPs, bytes of temporaries)` of a batch, as XLA states them; for benchmarks."""
        program = self._program(batch)
        flops = program.cost_analysis().get("flops", float("nan"))
        return float(flops), int(program.memory_analysis().temp_size_in_bytes)

    def __call__(self, batch: BatchPlan) -> StepOutputs:
        """Runs a batch; the results are numpy arrays.

        Raises:
          RunError: the device ran out of memory.
        """
        try:
            program = self._program(batch)
            with on_mesh(self._mesh):
                return jax.device_get(program(self._params, *self._inputs(batch)))
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            raise _run_error(error) from None

    def _inputs(self, batch: BatchPlan) -> tuple[Any, Any]:
        return spread((batch.groups, batch.mask), self._mesh)

    def _program(self, batch: BatchPlan) -> Any:
        shape = batch_shape(batch)
        if shape not in self._compiled:
            start = time.perf_counter()
            try:
                with on_mesh(self._mesh):
                    lowered = self._step.lower(self._params, *self._inputs(batch))
                    self._compiled[shape] = lowered.compile()
            except (jax.errors.JaxRuntimeError, MemoryError) as error:
                raise _run_error(error) from None
            self.compile_seconds += time.perf_counter() - start
        return self._compiled[shape]


def _run_error(error: Exception) -> Exception:
    """Running out of memory as one message; anything else stays what it is."""
    text = str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "out of memory" in text:
        return RunError(
            "out of memory: start again with a smaller --batch-tokens in a new directory"
        )
    return error
