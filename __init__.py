"""cleansteer: which sparse-autoencoder features of a language model steer cleanly.

Tells it before anyone steers, says how far it can be trusted, and lets training use only those.
"""

__version__ = "0.1.0"
