"""Inside the user's `scan` over batches, `vmap` over an ensemble, and `shard_map`."""

import pytest


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_inside_users_transformations(kind, worker):
    rows = {row["name"]: row for row in worker("inside_worker", kind)}
    assert rows.keys() == {"scan", "ensemble", "constraint", "shard_map"}
    for name, row in rows.items():
        assert row["difference"] < 1e-6, name
        if (kind, name) != ("Explicit", "constraint"):  # there the batch's type decides
            assert "'data'" in row["spec"], (name, row["spec"])
    assert "check_vma=False" in rows["shard_map"]["refusal"]
