"""Words of messages."""


def counted(count: int, noun: str) -> str:
    """A number with its noun: ``1 feature``, ``2 features``."""
    return f"{count} {noun}" + "s" * (count != 1)
