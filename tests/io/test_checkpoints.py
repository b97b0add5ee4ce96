"""Stored trees: whole or not at all, and damage of any file is found."""

import asyncio
import concurrent.futures
import gc
import logging
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishjax import io
from fishjax.io.checkpoints import load_tree, save_tree
from fishjax.io.files import remove
from fishjax.io.orbax_apart import orbax_apart
from fishjax.io.states import newest_state, remove_older, save_state
from tests.failing_disk import FailingDisk, no_file_larger_than


@pytest.fixture
def tree():
    random = np.random.default_rng(0).normal(size=(30, 40))
    return {
        "matrix": jnp.asarray(random, jnp.float32),
        "half": jnp.asarray(random[0], jnp.bfloat16),
        "numbers": [1, 2.5, None, "text", (jnp.arange(3), jnp.float32(7))],
        "empty": jnp.zeros((0, 3)),
    }


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_tree_reads_back_as_the_same_bits(tree, tmp_path):
    save_tree(tmp_path / "tree", tree)
    found = load_tree(tmp_path / "tree")
    assert_same(found, tree)
    assert found["half"].dtype == jnp.bfloat16
    assert os.listdir(tmp_path) == ["tree"]
    save_tree(tmp_path / "tree", {"no": "arrays"})
    assert load_tree(tmp_path / "tree") == {"no": "arrays"}


def test_it_works_where_an_event_loop_runs(tree, tmp_path):
    """As in a notebook."""

    async def cell():
        save_tree(tmp_path / "tree", tree)
        return load_tree(tmp_path / "tree")

    assert_same(asyncio.run(cell()), tree)


def test_threads_take_turns(tree, tmp_path):
    policy = asyncio.get_event_loop_policy()
    paths = [tmp_path / f"tree{i}" for i in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda path: save_tree(path, tree), paths))
        for found in pool.map(load_tree, paths):
            assert_same(found, tree)
    assert asyncio.get_event_loop_policy() is policy
    assert not logging.getLogger("absl").filters


def first_of(wanted):
    """The disk is full from that call on; only a rename fails once, so that it can be undone."""
    met = []

    def fails(call, number):
        del number
        met.append(call == wanted)
        return sum(met) == 1 and met[-1] if wanted[0] == "rename" else any(met)

    return fails


def test_a_full_disk_at_every_write_leaves_the_old_tree(tree, tmp_path, caplog, capfd):
    path = tmp_path / "tree"
    with FailingDisk(tmp_path) as disk:
        save_tree(path, {"old": jnp.ones(3)})
        save_tree(path, {"old": jnp.ones(3)})
    calls = list(dict.fromkeys(disk.calls))
    assert len(calls) > 20
    for call in calls:
        with (
            FailingDisk(tmp_path, first_of(call)),
            pytest.raises(io.OutputError, match=r"tree: No space left on device; .* run the same"),
        ):
            save_tree(path, tree)
        found = load_tree(path)
        assert_same(found, tree if "matrix" in found else {"old": jnp.ones(3)})
        save_tree(path, {"old": jnp.ones(3)})
        assert os.listdir(tmp_path) == ["tree"], call
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_a_full_disk_inside_tensorstore_is_the_same_message(tree, tmp_path, caplog, capfd):
    """Its writes are of C++, and its errors are no OSError."""
    save_tree(tmp_path / "whole", tree)
    files = [path for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    sizes = sorted({path.stat().st_size for path in files})
    failures = 0
    for size in [*sizes, 2 * sizes[-1]]:
        try:
            with no_file_larger_than(size - 1):
                save_tree(tmp_path / "tree", tree)
        except io.OutputError as error:
            failures += "tree: File too large; " in str(error)
            assert os.listdir(tmp_path) == ["whole"]
            continue
        assert_same(load_tree(tmp_path / "tree"), tree)  # sizes differ a little from run to run
        remove(tmp_path / "tree")
    assert len(sizes) - 2 <= failures <= len(sizes)
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_a_write_that_fails_as_its_loop_stops_is_not_logged(caplog, capfd):
    """One failure is raised; a second one in the same turn of the loop has no caller any more."""

    def two_failures():
        async def fails(text):
            raise OSError(text)

        async def both():
            await asyncio.gather(fails("first"), fails("second"))

        async def first():
            others.append(asyncio.ensure_future(fails("late")))
            await asyncio.sleep(0)

        others, loop = [], asyncio.new_event_loop()
        with pytest.raises(OSError, match="first"):
            loop.run_until_complete(both())
        loop.run_until_complete(first())
        assert others[0].done()
        loop.close()

    with orbax_apart() as run:
        run(two_failures)
    gc.collect()
    assert not caplog.records
    assert capfd.readouterr().err == ""


def damages(data):
    yield "empty", b""
    yield "halved", data[: len(data) // 2]
    yield "gone", None
    for k in range(4):
        place = k * len(data) // 4
        yield f"byte {place}", data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def refusal(path, tree):
    """None where it reads back as it was."""
    try:
        assert_same(load_tree(path), tree)
    except io.RowsError as error:
        return str(error)
    return None


def test_damage_of_any_file_is_found(tree, tmp_path, caplog):
    """Or changes nothing: Orbax keeps some files beside the arrays that nobody reads."""
    path = tmp_path / "tree"
    save_tree(path, tree)
    found = []
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        data = file.read_bytes()
        for what, damaged in damages(data):
            if damaged is None:
                file.unlink()
            else:
                file.write_bytes(damaged)
            message = refusal(path, tree)
            if message:
                assert str(path) in message
                assert "\n" not in message
                found.append((file.name, what))
            file.write_bytes(data)
    assert len(found) > 25
    assert {what for name, what in found if name == "structure.json"} == {
        what for what, _ in damages((path / "structure.json").read_bytes())
    }
    assert_same(load_tree(path), tree)
    assert not caplog.records


def test_a_kill_between_two_renames_keeps_the_old_tree(tree, tmp_path):
    save_tree(tmp_path / "operator", tree)
    (tmp_path / "run.json").write_text('{"settings": {"schema_version": 1}}')
    (tmp_path / "operator").rename(tmp_path / ".operator.old.tmp")
    (tmp_path / ".operator.tmp").mkdir()
    with io.open_run(tmp_path, {"settings": {"schema_version": 1}}):
        assert_same(load_tree(tmp_path / "operator"), tree)
    assert sorted(os.listdir(tmp_path)) == [".lock", "operator", "run.json"]


def test_a_checksum_finds_a_changed_number(tree, tmp_path):
    """Where Orbax reads without an error what is not what was written."""
    save_tree(tmp_path / "tree", tree)
    save_tree(tmp_path / "other", {**tree, "matrix": tree["matrix"].at[3, 5].add(1e-3)})
    (tmp_path / "tree" / "structure.json").replace(tmp_path / "other" / "structure.json")
    with pytest.raises(io.RowsError, match="array 0 differs from its checksum"):
        load_tree(tmp_path / "other")


def test_only_the_newest_state_stays(tmp_path):
    states = tmp_path / "states"
    assert newest_state(states) is None
    for number in range(3):
        save_state(states, f"{number:03d}", [jnp.full(2, number)])
    assert os.listdir(states) == ["002"]
    save_tree(states / "001", [jnp.zeros(2)])  # a kill came before it was removed
    (states / "001" / "structure.json").unlink()  # or while it was
    name, tree = newest_state(states)
    assert (name, float(tree[0][0])) == ("002", 2.0)
    remove_older(states)
    assert os.listdir(states) == ["002"]


def test_an_older_state_that_cannot_be_removed_is_one_message(tmp_path, monkeypatch):
    save_state(tmp_path, "001", [jnp.zeros(2)])

    def refuse(*args, **kwargs):
        raise OSError(30, os.strerror(30))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", refuse)
        with pytest.raises(io.OutputError, match="001: Read-only file system"):
            save_state(tmp_path, "002", [jnp.ones(2)])
    assert newest_state(tmp_path)[0] == "002"
