"""Steer features and measure stability and collateral spread, exactly and fast."""
