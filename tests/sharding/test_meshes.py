"""8 devices against one: numbers, where the results live, what the collectives move."""

import math

import pytest

from tests.sharding.programs import N

DEVICES = dict(batch=(8, 1), tensor=(4, 2), fsdp=(8, 8))  # over examples, over parameters


def per_example_sizes(shape, layout):
    """Elements a buffer of per-example gradients of a parameter can have, whole or sharded."""
    spread, shards = DEVICES[layout]
    layered = [shape, shape[1:]] if len(shape) > 2 else [shape]
    sizes = {math.prod(s) for s in layered}
    return {
        rows * size // part
        for size in sizes
        for rows in (N, N // spread)
        for part in {1, shards}
        if size % part == 0
    }


def whole_sizes(shape):
    return {math.prod(shape), math.prod(shape[1:])} if len(shape) > 2 else {math.prod(shape)}


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_sharded_programs(kind, worker):
    rows = worker("worker", kind)
    assert {row["layout"] for row in rows} == set(DEVICES)
    for row in rows:
        name = f"{row['layout']} {row['program']} {row['function']}"
        assert row["difference"] < 1e-6, name
        assert all("'data'" in spec for spec in row["specs"]), (name, row["specs"])
        if row["function"] == "inner_products":
            continue  # every pair of examples meets: the factors of one batch must travel
        moved, forward = ({size for _, size in row[key]} for key in ("moved", "forward"))
        matrices = [shape for shape in row["parameters"] if len(shape) > 1]
        gradients = set().union(*(per_example_sizes(s, row["layout"]) for s in matrices))
        assert not moved & (gradients - forward), (name, row["moved"])
        whole = set().union(*(whole_sizes(s) for s in matrices))
        assert not moved & whole - forward, (name, row["moved"])
