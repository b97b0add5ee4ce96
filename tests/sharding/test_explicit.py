"""Explicit axes: the user's own `out_sharding` and `reshard`, control flow, custom derivatives."""


def test_functions_written_for_explicit_axes(worker):
    rows = {row["name"]: row for row in worker("explicit_worker")}
    expected = ["norms", "covariance", "aux", "clipped", "blocks", "sitewise", "eager", "uses"]
    assert list(rows) == expected
    for name, row in rows.items():
        assert row["difference"] < 1e-6, name
    assert "P(None, 'data', None)" in str(rows["clipped"]["specs"])  # sums are like parameters
