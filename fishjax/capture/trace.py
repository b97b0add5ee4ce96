"""A function on one example as an analysed program: what report and engine start from."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fishjax.capture.analysis import Analysis, NotDifferentiableError, analyse
from fishjax.capture.factored import Materialised, accumulator
from fishjax.capture.forms import Form, choose_forms
from fishjax.capture.placement import example_mesh_axes
from fishjax.capture.plan import EmbeddingUse, ProductUse, TapUse
from fishjax.capture.sites import EXAMPLES, MEMBERS, embedding_container, product_container
from fishjax.capture.squeeze import squeezed_program
from fishjax.capture.verify import verify_once
from fishjax.trees import Selection, flatten_with_paths, leading_size, select_paths, take_example
from fishjax.types import Batch, Params

__all__ = ["Grouping", "Trace", "abstract_gradient"]


class Grouping(NamedTuple):
    """Examples in groups whose members share some of their inputs.

    Attributes:
      lead: (Q, K), groups and members of each.
      shared: for every leaf of the batch whether it is `[Q, ...]`, the same for all members, and
        not `[Q, K, ...]`.
    """

    lead: tuple[int, int]
    shared: tuple[bool, ...]

    def rows(self, batch: Batch) -> Batch:
        """`[Q K, ...]`: every member with inputs of its own."""
        q, k = self.lead

        def flat(leaf: Any, shared: bool) -> Any:
            if shared:
                return jnp.repeat(jnp.asarray(leaf), k, axis=0)
            return leaf.reshape(q * k, *leaf.shape[2:])

        leaves, treedef = jax.tree.flatten(batch)
        pairs = zip(leaves, self.shared, strict=True)
        return jax.tree.unflatten(treedef, [flat(leaf, shared) for leaf, shared in pairs])


class Trace:
    """The single-example program of `fn`, its uses, and the form of every parameter.

    Given concrete arrays, `fn` is first run, to check that it does not mix examples.

    Attributes:
      paths: of the parameter leaves.
      leaves: their arrays (or shapes).
      treedef: of the parameters.
      selected: which leaves are wanted.
      batch: the arrays, example axis first; of groups as in `Grouping`.
      grouping: how examples share inputs, or None.
      num_examples: N, of groups Q K.
      has_aux: whether the function returns `(values, aux)`.
      num_outputs: K for a function of K outputs, None for one number per example.
      aux_tree: structure of the auxiliary output.
      example_axes: mesh axes over which the function's own constraints spread the examples.
      analysis: plan and uses.
      forms: one for every leaf.
    """

    def __init__(
        self,
        fn: Any,
        params: Params,
        batch: Batch,
        *,
        parameters: Selection = None,
        has_aux: bool = False,
        vector: bool = False,
        grouping: Grouping | None = None,
    ):
        rows = batch if grouping is None else grouping.rows(batch)
        verify_once(fn, params, rows, has_aux)
        self.batch, self.has_aux, self.grouping = batch, has_aux, grouping
        self.paths, leaves, self.treedef = flatten_with_paths(params)
        self.leaves = [leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf) for leaf in leaves]
        self.selected = select_paths(self.paths, parameters)
        self.num_examples = leading_size(rows)
        example = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(jnp.shape(x)[1:], jnp.result_type(x)), rows
        )

        def single(*inputs: Any) -> Any:
            tree = jax.tree.unflatten(self.treedef, inputs[: len(self.leaves)])
            values = fn(tree, take_example(inputs[-1]))
            values, aux = values if has_aux else (values, ())
            return _one(values, vector), jax.tree.map(_drop_example, aux)

        closed, (value, aux) = jax.make_jaxpr(single, return_shape=True)(*self.leaves, example)
        self.aux_tree = jax.tree.structure(aux)
        self.num_outputs: int | None = value.shape[0] if vector else None
        self.example_axes = example_mesh_axes(closed.jaxpr)
        inputs = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
        squeezed = jax.make_jaxpr(squeezed_program(closed.jaxpr, list(closed.consts)))(*inputs)
        self.analysis = self._analysed(squeezed)
        shapes = [tuple(jnp.shape(leaf)) for leaf in self.leaves]
        self.forms: list[Form] = choose_forms(self.analysis.plan, self.analysis.uses, shapes)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the mapped axes of the examples, outermost first."""
        return (EXAMPLES,) if self.grouping is None else (EXAMPLES, MEMBERS)

    def over_examples(self, per_example: Any) -> Any:
        """`(values, aux, statistics)` of all examples; statistics have no example axis."""
        out_axes, mapped = (0, 0, None), per_example
        if self.grouping is not None:
            treedef = jax.tree.structure(self.batch)
            axes = [None if shared else 0 for shared in self.grouping.shared]
            mapped = jax.vmap(
                mapped,
                in_axes=(jax.tree.unflatten(treedef, axes),),
                out_axes=out_axes,
                axis_name=MEMBERS,
            )
        mapped = jax.vmap(
            mapped,
            out_axes=out_axes,
            axis_name=EXAMPLES,
            spmd_axis_name=self.example_axes or None,
        )
        return mapped(self.batch)

    def _analysed(self, closed: Any) -> Analysis:
        try:
            return analyse(closed.jaxpr, list(closed.consts), len(self.leaves), self.selected)
        except NotDifferentiableError as error:
            paths = ", ".join(repr(self.paths[leaf]) for leaf in sorted(error.leaves))
            raise ValueError(
                f"the gradient of {paths} passes through `{error.primitive}`, which JAX cannot "
                "differentiate in reverse: give the loop a fixed length (jax.lax.scan), stop the "
                "gradient (jax.lax.stop_gradient), or leave the parameter out (parameters=)"
            ) from None

    @property
    def reported(self) -> list[int]:
        """The leaves that have a gradient and are wanted."""
        return [
            i
            for i, leaf in enumerate(self.leaves)
            if self.selected[i] and jnp.issubdtype(leaf.dtype, jnp.floating)
        ]


def _one(values: Any, vector: bool) -> Any:
    shape = jnp.shape(values)
    if vector:
        if len(shape) != 2 or shape[0] != 1:
            raise ValueError(
                f"the function returned shape {shape} for a batch of one example: expected [N, K], "
                "K outputs per example"
            )
    elif shape != (1,):
        raise ValueError(
            f"fn returned shape {shape} for a batch of one example: expected (1,), one number "
            "per example; sum or select inside fn"
        )
    if not jnp.issubdtype(jnp.result_type(values), jnp.floating):
        raise ValueError(f"fn returned dtype {jnp.result_type(values)}: expected floating numbers")
    return values[0]


def _drop_example(leaf: Any) -> Any:
    shape = jnp.shape(leaf)
    if not shape or shape[0] != 1:
        raise ValueError(
            f"an auxiliary output has shape {shape} for a batch of one example: expected the "
            "example axis first"
        )
    return leaf[0]


def abstract_gradient(use: Any, n: int, joint: bool, outputs: int = 1) -> Any:
    """The container a use produces, as shapes."""
    spec = jax.ShapeDtypeStruct
    if isinstance(use, TapUse):
        assert use.view is not None
        return Materialised(spec((n * outputs, *use.view.root_shape), accumulator(use.dtype)))
    if isinstance(use, EmbeddingUse):
        ids = spec((n, use.rows), jnp.float32)
        right = spec((n * outputs, use.rows, use.features), use.dtype)
        return jax.eval_shape(lambda i, r: embedding_container(use, i, r, joint), ids, right)
    assert isinstance(use, ProductUse)
    left = spec((n, use.num_blocks, use.rows, use.left_size), use.data_dtype)
    right = spec((n * outputs, use.num_blocks, use.rows, use.right_size), use.dtype)
    return jax.eval_shape(lambda a, b: product_container(use, a, b, joint), left, right)
