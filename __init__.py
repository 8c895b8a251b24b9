"""cleansteer: which sparse-autoencoder features of a language model steer cleanly.

Tells it before anyone steers, says how far it can be trusted, and lets training use only those.
"""

import wrapt

__version__ = "0.1.0"


def _register_adapters(peft: object) -> None:
    import warnings

    try:
        from . import adapters  # noqa: F401
    except ImportError as error:
        # A PEFT that our adapters do not fit stays usable.
        warnings.warn(f"cleansteer's adapters are not known to PEFT: {error}", stacklevel=2)


# Once PEFT is imported, and only then: it takes seconds.
wrapt.register_post_import_hook(_register_adapters, "peft")
