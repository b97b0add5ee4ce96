"""Benchmarks: ratios measured side by side in one run, compiled cost and memory beside them."""
