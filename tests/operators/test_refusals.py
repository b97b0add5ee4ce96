"""Refusals say what came, what was expected and what to do."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax import operators
from fishjax.operators import (
    Diagonal,
    EigenKronecker,
    EigenKroneckerFactors,
    Isotropic,
    Kronecker,
    KroneckerFactors,
    LowRankPlusDiagonal,
)
from fishjax.operators.base import frozen_pytree
from fishjax.operators.blocks import checked_blocks

W = {"w": jnp.ones((2, 3))}

CONSTRUCTORS = {
    "scale is an array": (lambda: Isotropic(jnp.ones(2)), r"shape \(2,\): expected a scalar.*use"),
    "scale is an integer array": (
        lambda: Isotropic(jnp.array(1)),
        "scale has dtype int32.*convert",
    ),
    "scale is a string": (lambda: Isotropic("1"), "scale has a str: expected a floating-point"),
    "scale is a truth value": (lambda: Isotropic(True), "scale has a bool"),
    "diagonal integer": (
        lambda: Diagonal({"a": {"b": jnp.arange(3)}}),
        "diagonal 'a/b' has dtype int32",
    ),
    "same path twice": (
        lambda: Diagonal({"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}),
        "two leaves have the path 'a/b'",
    ),
    "complex": (lambda: KroneckerFactors(jnp.ones((2, 2), complex), None), "dtype complex"),
    "integer factor": (lambda: KroneckerFactors(None, jnp.eye(2, dtype=int)), "dtype int"),
    "not square": (
        lambda: KroneckerFactors(jnp.ones((2, 3)), None),
        r"left factor has shape \(2, 3\) with batch=0: expected a square .*set batch",
    ),
    "forgotten batch": (
        lambda: KroneckerFactors(None, jnp.ones((5, 2, 2))),
        r"right factor has shape \(5, 2, 2\) with batch=0.*set batch",
    ),
    "stacks differ": (
        lambda: KroneckerFactors(jnp.ones((2, 3)), jnp.ones((4, 3)), batch=1),
        r"stacked over \(2,\), the right one over \(4,\)",
    ),
    "axis twice": (lambda: KroneckerFactors(None, None, (0,), (0,)), "expected every axis once"),
    "negative axis": (lambda: KroneckerFactors(None, None, (-1,)), "counted from 0"),
    "axis skipped": (
        lambda: KroneckerFactors(None, None, (0,), (2,)),
        "expected together every axis from 0 to 2",
    ),
    "negative batch": (lambda: KroneckerFactors(None, None, batch=-1), "batch is -1: expected"),
    "eigenvalues flat": (
        lambda: EigenKroneckerFactors(None, None, jnp.ones(3)),
        r"eigenvalues have shape \(3,\) with batch=0: expected \[\*batch, I, J\]",
    ),
    "basis of another size": (
        lambda: EigenKroneckerFactors(jnp.eye(2), None, jnp.ones((3, 3))),
        r"left basis has shape \(2, 2\): expected \(3, 3\), because the eigenvalues",
    ),
    "basis is a vector": (
        lambda: EigenKroneckerFactors(None, jnp.ones(3), jnp.ones((3, 3))),
        r"right basis has shape \(3,\).*expected a square",
    ),
    # through the check itself: in tests beartype refuses the annotated constructor first
    "not a mapping": (
        lambda: checked_blocks("Kronecker", [1], KroneckerFactors),
        "Kronecker got a list: expected a dict from path",
    ),
    "value of another type": (
        lambda: checked_blocks("X", {"w": KroneckerFactors(None, None)}, EigenKroneckerFactors),
        "has KroneckerFactors under 'w': expected EigenKroneckerFactors",
    ),
    "key is no string": (
        lambda: checked_blocks("X", {("w",): KroneckerFactors(None, None)}, KroneckerFactors),
        r"under \('w',\)",
    ),
    "ranks differ": (
        lambda: LowRankPlusDiagonal({"a": jnp.ones((2, 3)), "b": jnp.ones((1, 3))}, 1.0),
        r"r = \{'a': 2, 'b': 1\}: expected .* one r for all; put",
    ),
    "basis without r": (
        lambda: LowRankPlusDiagonal({"a": jnp.ones(())}, 1.0),
        "no axis.*expected leaves",
    ),
    "empty basis": (lambda: LowRankPlusDiagonal({}, 1.0), r"r = \{\}: expected"),
    "diagonal of another shape": (
        lambda: LowRankPlusDiagonal({"a": jnp.ones((2, 3))}, {"a": jnp.ones((2, 3))}),
        r"'a': the diagonal has shape \(2, 3\): expected \(3,\)",
    ),
    "diagonal lacks a leaf": (
        lambda: LowRankPlusDiagonal({"a": jnp.ones((2, 3))}, {"b": jnp.ones(3)}),
        "diagonal has nothing for parameter 'a': it holds",
    ),
    "integer basis": (
        lambda: LowRankPlusDiagonal({"a": jnp.ones((2, 3), int)}, 1.0),
        "basis 'a' has dtype int",
    ),
}


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_constructors(name):
    build, message = CONSTRUCTORS[name]
    with pytest.raises(ValueError, match=message):
        build()


USES = {
    "kronecker lacks a parameter": (
        lambda: Kronecker({"v": KroneckerFactors(None, None)}),
        r"Kronecker has nothing for parameter 'w': it holds \['v'\]; expected one entry .*; add",
    ),
    "diagonal lacks a parameter": (
        lambda: Diagonal({"v": jnp.ones(2)}),
        "Diagonal has nothing for parameter 'w'",
    ),
    "low rank lacks a parameter": (
        lambda: LowRankPlusDiagonal({"v": jnp.ones((1, 2))}, 1.0),
        "LowRankPlusDiagonal has nothing for parameter 'w'",
    ),
    "diagonal of another shape": (
        lambda: Diagonal({"w": jnp.ones((3, 2))}),
        r"parameter 'w': the diagonal has shape \(3, 2\): expected \(2, 3\)",
    ),
    "vectors of another shape": (
        lambda: LowRankPlusDiagonal({"w": jnp.ones((1, 3, 2))}, 1.0),
        r"parameter 'w': one vector of the basis has shape \(3, 2\)",
    ),
    "left factor of another size": (
        lambda: Kronecker({"w": KroneckerFactors(jnp.eye(3), None)}),
        r"parameter 'w': the left factor has shape \(3, 3\): expected \(2, 2\), because the leaf",
    ),
    "right factor of another size": (
        lambda: Kronecker({"w": KroneckerFactors(None, jnp.ones(2))}),
        r"parameter 'w': the right factor has shape \(2,\): expected \(3,\)",
    ),
    "too many stacked axes": (
        lambda: Kronecker({"w": KroneckerFactors(None, None, batch=3)}),
        r"parameter 'w': the leaf has shape \(2, 3\) but .* batch=3",
    ),
    "too many axes": (
        lambda: Kronecker({"w": KroneckerFactors(None, None, (0, 1), (2,))}),
        "parameter 'w': left_axes=.* name other axes",
    ),
    "other stack": (
        lambda: Kronecker({"w": KroneckerFactors(None, jnp.ones((4, 3)), batch=1)}),
        r"parameter 'w': the right factor has shape \(4, 3\): expected \(2, 3\)",
    ),
    "eigenvalues of another shape": (
        lambda: EigenKronecker({"w": EigenKroneckerFactors(None, None, jnp.ones((3, 2)))}),
        r"parameter 'w': eigenvalues have shape \(3, 2\): expected \(2, 3\)",
    ),
    "leaf operator on a tree": (
        lambda: KroneckerFactors(None, None),
        r"KroneckerFactors acts on one array, and a tree with \['w'\] came",
    ),
    "eigen leaf operator on a tree": (
        lambda: EigenKroneckerFactors(None, None, jnp.ones((2, 3))),
        "EigenKroneckerFactors acts on one array",
    ),
}


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("function", ["multiply", "quadratic", "to_dense", "leaf_metrics"])
def test_uses(name, function):
    build, message = USES[name]
    operator = build()
    keyword = {"like": W} if function == "to_dense" else {}
    arguments = (operator,) if keyword else (operator, W)
    with pytest.raises(ValueError, match=message):
        getattr(operators, function)(*arguments, **keyword)


@pytest.mark.parametrize(
    "operator",
    [
        Diagonal({"w": jnp.ones((2, 3)), "v": jnp.ones(1)}),
        Kronecker({p: KroneckerFactors(None, None) for p in "vw"}),
        LowRankPlusDiagonal({"w": jnp.ones((1, 2, 3)), "v": jnp.ones((1, 1))}, 1.0),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_parts_without_a_parameter(operator):
    with pytest.raises(ValueError, match="has an entry for 'v', which is not in the tree"):
        operators.multiply(operator, W)
    assert list(operators.leaf_metrics(operator, W)) == ["w"]


def test_long_lists_are_cut():
    operator = Diagonal({f"p{i:02}": jnp.ones(1) for i in range(20)})
    with pytest.raises(ValueError, match="'p07'] and 12 more"):
        operators.multiply(operator, W)


def test_refusals_happen_while_tracing():
    with pytest.raises(ValueError, match="nothing for parameter 'w'"):
        jax.jit(operators.multiply)(Diagonal({"v": jnp.ones(1)}), W)


class Unknown(operators.Operator):
    pass


def test_unknown_types_say_how_to_register():
    calls = {
        "multiply": lambda o: operators.multiply(o, W),
        "to_dense": lambda o: operators.to_dense(o, like=W),
        "leaf_metrics": lambda o: operators.leaf_metrics(o, W),
        "move_batch_first": lambda o: operators.move_batch_first(o, (1,)),
    }
    for name, call in calls.items():
        message = rf"{name} has no rule for Unknown.*@{name}.register\(Unknown\)"
        with pytest.raises(TypeError, match=message):
            call(Unknown())
    with pytest.raises(TypeError, match="quadratic has no rule for dict"):
        operators.quadratic({}, W)


def test_a_new_type_needs_one_registration_for_products():
    @frozen_pytree
    @dataclasses.dataclass(frozen=True, eq=False)
    class Twice(operators.Operator):
        pass

    @operators.multiply.register(Twice)
    def _(operator, tree):
        del operator
        return jax.tree.map(lambda leaf: 2 * leaf, tree)

    assert operators.quadratic(Twice(), W) == 12
    assert operators.apply(Twice(), jnp.ones((4, 2))).tolist() == [[2.0, 2.0]] * 4


def test_numpy_arrays_and_numbers_are_accepted():
    operator = Diagonal({"w": np.full((2, 3), 2.0), "s": 3.0})
    assert operators.quadratic(operator, {"w": np.ones((2, 3), np.float32), "s": 1.0}) == 15
    assert operators.quadratic(Isotropic(2), W) == 12


def test_empty_trees():
    assert operators.quadratic(Isotropic(1.0), {}) == 0
    assert operators.multiply(Kronecker({}), {}) == {}
    assert operators.to_dense(Kronecker({}), like={}).shape == (0, 0)
    assert operators.to_dense(Diagonal({}), like={}).shape == (0, 0)
    assert operators.leaf_metrics(Diagonal({}), {}) == {}
