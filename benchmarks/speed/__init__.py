"""Speed benchmarks, one module a family of cases; `python -m benchmarks` runs them."""
