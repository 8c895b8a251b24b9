"""Settings, miniature models and the road from a setting to its results."""
