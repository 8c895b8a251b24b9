"""The bundled settings, one TOML file each."""
