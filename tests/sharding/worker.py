"""Runs in its own process with 8 devices: `worker Auto|Explicit`.

Prints one JSON object a line: how far the sharded numbers are from one device's, how the
results are sharded, and what the collectives of the compiled program move.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fishjax import gradients
from tests.sharding.collectives import moved
from tests.sharding.programs import MESHES, PROGRAMS, N, Setup, T, tokens


def put(mesh, tree, specs):
    return jax.tree.map(lambda x, s: jax.device_put(x, NamedSharding(mesh, s)), tree, specs)


def difference(found, expected):
    """Largest difference relative to the largest entry of the same array."""
    sides = ([np.asarray(x) for x in jax.tree.leaves(side)] for side in (found, expected))
    worst = 0.0
    for a, b in zip(*sides, strict=True):
        scale = np.abs(b) if a.ndim < 3 else np.abs(b).max()
        worst = max(worst, float(np.max(np.abs(a - b) / np.maximum(scale, 1e-300))))
    return worst


def calls(name, program, layout="tensor"):
    """name -> (function, its batches); the costly ones only where data and model axes meet."""
    groups, mask = program.batch.reshape(N // 2, 2, -1), jnp.ones((N // 2, 2), bool)
    found = dict(squared_norms=(gradients.squared_norms(program.log_prob), (program.batch,)))
    if name == "mlp" or (name == "decoder" and layout == "tensor"):
        found["grouped_gram"] = gradients.grouped_gram(program.log_prob), (groups, mask)
    if name == "mlp" and layout != "batch":
        found["jacobian_gram"] = gradients.jacobian_gram(program.apply), (program.batch,)
        batches = program.batch, tokens(8, T, seed=1)
        found["inner_products"] = gradients.inner_products(program.log_prob), batches
    return found


def expected(name):
    """What one device computes."""
    program = PROGRAMS[name](Setup())
    functions = calls(name, program).items()
    return {f: jax.jit(run)(program.params, *batches) for f, (run, batches) in functions}


def report(name, setup, references):
    program, mesh = PROGRAMS[name](setup), setup.mesh
    params = put(mesh, program.params, program.specs)
    sharded = NamedSharding(mesh, P("data"))
    with jax.set_mesh(mesh):
        batch = jax.device_put(program.batch, sharded)
        forward = jax.jit(program.log_prob).lower(params, batch).compile().as_text()
    for function, (run, batches) in calls(name, program, setup.layout).items():
        with jax.set_mesh(mesh):
            args = jax.device_put(batches, sharded)
            compiled = jax.jit(run).lower(params, *args).compile()
            found = compiled(params, *args)
        row = dict(
            layout=setup.layout,
            program=name,
            function=function,
            difference=difference(jax.device_get(found), references[function]),
            specs=sorted({str(x.sharding.spec) for x in jax.tree.leaves(found)}),
            moved=moved(compiled.as_text()),
            forward=moved(forward),
            parameters=[leaf.shape for leaf in jax.tree.leaves(program.params)],
        )
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    for name in PROGRAMS:
        references = expected(name)
        for layout in MESHES:
            report(name, Setup(sys.argv[1], layout), references)
