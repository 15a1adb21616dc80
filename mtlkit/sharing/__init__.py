"""The built-in sharing schemes, one module each: how tasks share an encoder. See `mtlkit.trunk` for what they are."""
