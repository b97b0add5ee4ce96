"""What users write on Explicit axes, through every function of `gradients`; data axis only."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, reshard
from jax.sharding import PartitionSpec as P

from fishjax import capture, gradients, operators
from tests.sharding.worker import difference

N, D = 16, 8
ON_DATA = P("data", None)


@jax.custom_vjp
def doubled_sine(x):
    return 2 * jnp.sin(x)


doubled_sine.defvjp(lambda x: (doubled_sine(x), (x, 3)), lambda r, g: (2 * jnp.cos(r[0]) * g,))


@jax.custom_jvp
def kink(x):
    return jnp.maximum(x, 0)


kink.defjvp(lambda x, t: (kink(*x), jnp.where(x[0] > 0, t[0], 0)))


def body(explicit, hidden, layer):
    if explicit:
        layer = jax.tree.map(lambda w: reshard(w, P()), layer)
        mixed = jnp.einsum("ni,ij->nj", hidden, layer["w"], out_sharding=ON_DATA)
        mixed = jnp.where(mixed > 0, mixed, jnp.zeros(mixed.shape, out_sharding=ON_DATA))
    else:
        mixed = jnp.maximum(hidden @ layer["w"], 0)
    step = jax.lax.cond(layer["b"].sum() > 0, kink, doubled_sine, mixed + layer["b"])
    return hidden + doubled_sine(step) + jax.nn.relu(step), None


def log_prob(explicit, params, batch):
    step = jax.checkpoint(functools.partial(body, explicit))
    hidden, _ = jax.lax.scan(step, batch["x"], params["layers"])
    hidden = jax.lax.fori_loop(0, 2, lambda i, h: h / (1 + i), hidden)
    return jnp.sum(hidden * params["scale"] + jax.nn.silu(hidden), axis=1) * batch["weight"]


def functions(explicit):
    fn = functools.partial(log_prob, explicit)
    covariance = operators.Isotropic(0.5)

    def summed(gradient):
        return gradient.materialise().sum(axis=0)

    def with_aux(params, batch):
        return fn(params, batch), batch["x"]

    return dict(
        norms=gradients.squared_norms(fn),
        covariance=gradients.squared_norms(fn, covariance=covariance),
        aux=gradients.squared_norms(with_aux, has_aux=True),
        clipped=gradients.clipped_gradients(fn, 1.0),
        blocks=gradients.gradient_blocks(fn, parameters="scale"),
        sitewise=capture.sitewise(fn, summed),
    )


def main():
    rng = np.random.default_rng(0)
    layers = dict(w=rng.normal(size=(3, D, D)) / 3, b=rng.normal(size=(3, D)))
    params = jax.tree.map(jnp.asarray, dict(layers=layers, scale=rng.normal(size=D)))
    batch = dict(x=jnp.asarray(rng.normal(size=(N, D))), weight=jnp.arange(1.0, N + 1))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    single, spread = functions(False), functions(True)
    expected = {name: jax.jit(run)(params, batch) for name, run in single.items()}
    covered = str(capture.uses(functools.partial(log_prob, False), params, batch))
    with jax.set_mesh(mesh):
        fsdp = dict(layers=dict(w=P(None, "data"), b=P(None, "data")), scale=P())
        params = jax.tree.map(lambda w, s: jax.device_put(w, NamedSharding(mesh, s)), params, fsdp)
        batch = jax.device_put(batch, NamedSharding(mesh, P("data")))
        for name, run in spread.items():
            found = jax.jit(run)(params, batch)
            specs = sorted({str(x.sharding.spec) for x in jax.tree.leaves(found)})
            found = difference(jax.device_get(found), expected[name])
            print(json.dumps(dict(name=name, difference=found, specs=specs)), flush=True)
        eager = difference(jax.device_get(spread["norms"](params, batch)), expected["norms"])
        print(json.dumps(dict(name="eager", difference=eager)))
        uses = capture.uses(functools.partial(log_prob, True), params, batch)
        print(json.dumps(dict(name="uses", difference=float(str(uses) != covered))))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
