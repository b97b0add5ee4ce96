"""The table of models in Flax Linen."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from . import table
from .table import CLASSES, EXPERTS, HEADS, LAYERS, D, T, V, class_log_prob, next_log_prob

CASES, case = table.registry()


def built(module, batch):
    """The case of a module whose `__call__(batch)` gives `[N]`."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), batch)["params"]
    return (lambda p, b: module.apply({"params": p}, b)), table.drawn(shapes), batch


def from_call(call, batch):
    """The case of a module given as the body of its compact call."""

    class Model(nn.Module):
        @nn.compact
        def __call__(self, batch):
            return call(self, batch)

    return built(Model(), batch)


def classified(features, batch):
    """A module that classifies `features(x)`."""
    call = lambda _, b: class_log_prob(nn.Dense(CLASSES)(features(b["x"])), b)  # noqa: E731
    return from_call(call, batch)


@case
def mlp():
    def features(x):
        for width in (D + 1, D):
            x = nn.relu(nn.Dense(width)(x))
        return x

    return classified(features, table.vectors())


@case
def cnn():
    def features(x):
        x = jnp.tanh(nn.Conv(4, (3, 3), strides=(2, 1), use_bias=False)(x))
        x = jnp.tanh(nn.Conv(4, (3, 3), kernel_dilation=(1, 2))(x))
        x = jnp.tanh(nn.Conv(8, (3, 3), feature_group_count=4)(x))
        x = jnp.tanh(nn.Conv(4, (2, 2), feature_group_count=2, padding="CIRCULAR")(x))
        x = nn.ConvTranspose(3, (2, 2), strides=(2, 2))(x)
        return nn.max_pool(x, (2, 2), (2, 2)).mean((1, 2))

    return classified(features, table.images())


@case
def convolution_local():
    """No weights shared over space."""
    return classified(
        lambda x: jnp.tanh(nn.ConvLocal(3, (2, 2), padding="VALID")(x)).mean((1, 2)),
        table.images(),
    )


@case
def resnet():
    def features(x):
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        for _ in range(LAYERS):
            x = nn.silu(nn.GroupNorm(num_groups=2)(x))
            y = nn.Conv(4, (3, 3), strides=2, use_bias=False)(x)
            y = nn.Conv(4, (3, 3), use_bias=False)(nn.silu(nn.GroupNorm(num_groups=2)(y)))
            x = nn.Conv(4, (1, 1), strides=2, use_bias=False)(x) + y
        return x.mean((1, 2))

    return classified(features, table.images())


@case
def lstm():
    def features(x):
        for _ in range(2):
            x = nn.RNN(nn.OptimizedLSTMCell(D, param_dtype=jnp.result_type(float)))(x)
        return x[:, -1]

    return classified(features, table.sequences())


class Block(nn.Module):
    """A pre-norm transformer block; returns a pair, as `nn.scan` wants it."""

    @nn.compact
    def __call__(self, h, mask):
        h = h + nn.MultiHeadDotProductAttention(HEADS)(nn.LayerNorm()(h), mask=mask)
        x = nn.gelu(nn.Dense(2 * D)(nn.LayerNorm()(h)))
        return h + nn.Dense(D)(x), None


@case
def encoder():
    def call(module, batch):
        keep = batch["ids"] > 0
        h = nn.Embed(V, D)(batch["ids"])
        h = h + module.param("positions", nn.initializers.zeros, (T, D))
        for _ in range(LAYERS):
            h, _ = Block()(h, nn.make_attention_mask(keep, keep))
        return class_log_prob(nn.Dense(CLASSES)(nn.LayerNorm()(h)[:, 0]), batch)

    return from_call(call, table.sentences())


def decode(layers, norm=nn.LayerNorm):
    def call(module, batch):
        del module
        ids = batch["ids"]
        embed = nn.Embed(V, D)
        h = embed(ids) + nn.Embed(8, D)(jnp.arange(ids.shape[1]))
        h = layers(h, nn.make_causal_mask(ids))
        return next_log_prob(embed.attend(norm()(h)), ids)

    return from_call(call, table.sentences())


def unrolled(block):
    def layers(h, mask):
        for _ in range(LAYERS):
            h, _ = block()(h, mask)
        return h

    return layers


def scanned(block):
    def layers(h, mask):
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=LAYERS,
        )
        return stack()(h, mask)[0]

    return layers


@case
def decoder():
    return decode(unrolled(Block))


@case
def decoder_remat():
    return decode(unrolled(nn.remat(Block)))


@case
def decoder_scan():
    return decode(scanned(Block))


@case
def decoder_scan_remat():
    return decode(scanned(nn.remat(Block, prevent_cse=False)), nn.RMSNorm)


@case
def encoder_decoder():
    def call(module, batch):
        source, target = batch["source"], batch["target"]
        embed = nn.Embed(V, D)
        memory, _ = Block()(embed(source), None)
        h = embed(target) + module.param("positions", nn.initializers.zeros, (T, D))
        mask = nn.make_causal_mask(target)
        h = h + nn.MultiHeadDotProductAttention(HEADS)(nn.LayerNorm()(h), mask=mask)
        h = h + nn.MultiHeadDotProductAttention(HEADS)(nn.LayerNorm()(h), memory)
        return next_log_prob(embed.attend(h), target)

    return from_call(call, table.pairs())


@case
def mixture_soft():
    """Experts are a vmapped Dense."""

    def features(x):
        gate = nn.softmax(nn.Dense(EXPERTS, use_bias=False)(x))
        split = dict(variable_axes={"params": 0}, split_rngs={"params": True}, out_axes=0)
        inner = nn.vmap(nn.Dense, in_axes=None, axis_size=EXPERTS, **split)(5)
        outer = nn.vmap(nn.Dense, in_axes=0, axis_size=EXPERTS, **split)(D)
        return jnp.einsum("entd,nte->nd", outer(jnp.tanh(inner(x))), gate)

    return classified(features, table.sequences())


@case
def mixture_top1():
    def call(module, batch):
        x, init = batch["x"], nn.initializers.zeros
        gate = table.one_expert(nn.softmax(nn.Dense(EXPERTS, use_bias=False)(x)))
        inner = module.param("inner", init, (EXPERTS, D, 5))
        outer = module.param("outer", init, (EXPERTS, 5, D))
        hidden = jnp.tanh(jnp.einsum("ntd,edf->ntef", x, inner))
        h = jnp.einsum("ntef,efd,nte->nd", hidden, outer, gate)
        return class_log_prob(nn.Dense(CLASSES)(h), batch)

    return from_call(call, table.sequences())


@case
def einsum_layer():
    def features(x):
        x = jnp.tanh(nn.Einsum((D, HEADS, 3), "ntd,dhk->nthk")(x))
        return nn.Einsum((HEADS, 3, D), "nthk,hkd->ntd", use_bias=False)(x).mean(1)

    return classified(features, table.sequences())


@case
def dense_general():
    def features(x):
        x = jnp.tanh(nn.DenseGeneral((HEADS, 3))(x))
        return nn.DenseGeneral(D, axis=(-2, -1))(x).mean(1)

    return classified(features, table.sequences())


@case
def weight_norm():
    def features(x):
        x = jnp.tanh(nn.WeightNorm(nn.Dense(D + 1), variable_filter={"kernel"})(x))
        return nn.WeightNorm(nn.Dense(D), variable_filter={"kernel"}, use_scale=False)(x)

    return classified(features, table.vectors())


@case
def norms():
    def features(x):
        h = jnp.tanh(nn.Dense(2 * D)(x))
        x = nn.RMSNorm()(h)
        parts = nn.GroupNorm(num_groups=2)(x), nn.InstanceNorm()(h), nn.LayerNorm(use_bias=False)(x)
        return sum(jnp.tanh(part).mean(1) for part in parts)

    return classified(features, table.sequences())


@case
def embedding_one_hot():
    def call(module, batch):
        del module
        one_hot = nn.one_hot(batch["ids"], V, dtype=jnp.result_type(float))
        h = jnp.tanh(nn.Dense(D, use_bias=False)(one_hot) + nn.PReLU()(one_hot).mean(-1)[..., None])
        return next_log_prob(nn.Dense(V)(h), batch["ids"])

    return from_call(call, table.sentences())
