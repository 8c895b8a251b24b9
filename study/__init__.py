"""The product's own road: from a setting, or objects in memory, to a verdict and an allowlist."""
