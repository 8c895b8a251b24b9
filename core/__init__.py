"""Settings, models, SAEs, contexts, tables and runs: what everything else stands on."""
