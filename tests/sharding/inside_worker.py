"""`squared_norms` inside the user's own transformations, on a mesh of 8 devices."""

import json
import sys

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from fishjax import gradients
from tests.sharding.programs import Setup, mlp, tokens
from tests.sharding.worker import difference, put

BATCHES = 3


def scan_over_batches(run, params, batches):
    return jax.lax.scan(lambda _, batch: (None, run(params, batch)[1]), None, batches)[1]


def ensemble(run, members, batch):
    return jax.vmap(lambda params: run(params, batch)[1])(members)


def compare(name, function, setup, params, batch, batch_spec):
    """Both with one device and with the setup's."""
    results = []
    for where in (setup, Setup()):
        program = mlp(where)
        run = gradients.squared_norms(program.log_prob)
        if where.kind == "none":
            found = jax.jit(function, static_argnums=0)(run, params, batch)
        else:
            mesh = where.mesh
            specs = program.specs
            if name == "ensemble":
                specs = jax.tree.map(lambda s: P(None, *s), specs)
            with jax.set_mesh(mesh):
                spread = jax.device_put(batch, NamedSharding(mesh, batch_spec))
                placed = put(mesh, params, specs)
                found = jax.jit(function, static_argnums=0)(run, placed, spread)
                spec = found.total.sharding.spec
        results.append(jax.device_get(found))
    print(json.dumps(dict(name=name, difference=difference(*results), spec=str(spec))), flush=True)


def shard_map_body(setup):
    """The body has no mesh axes of its own to think of: the function for one device."""
    program, mesh = mlp(Setup()), setup.mesh
    run = gradients.squared_norms(program.log_prob)
    expected = jax.jit(run)(program.params, program.batch)
    spread = dict(in_specs=(P(), P("data")), out_specs=P("data"))
    mapped = jax.shard_map(run, check_vma=False, **spread)
    with jax.set_mesh(mesh):
        params = jax.device_put(program.params, NamedSharding(mesh, P()))
        batch = jax.device_put(program.batch, NamedSharding(mesh, P("data")))
        found = jax.jit(mapped)(params, batch)
        refusal = refused(jax.shard_map(run, **spread), params, batch)
    row = dict(name="shard_map", difference=difference(found, expected), refusal=refusal)
    print(json.dumps({**row, "spec": str(found[1].total.sharding.spec)}))


def refused(function, *args):
    try:
        jax.jit(function)(*args)
    except ValueError as error:
        return str(error)
    return ""


def main(kind):
    setup = Setup(kind, "tensor")
    program = mlp(setup)
    batches = tokens(BATCHES, *program.batch.shape, seed=2)
    compare("scan", scan_over_batches, setup, program.params, batches, P(None, "data"))
    members = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), program.params)
    compare("ensemble", ensemble, setup, members, program.batch, P("data"))
    whole = P()  # a batch that only the function's own constraints spread
    compare(
        "constraint", lambda run, *args: run(*args)[1], setup, program.params, program.batch, whole
    )
    shard_map_body(Setup(kind, "batch"))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(sys.argv[1])
