"""Words of messages."""


def counted(count: int, noun: str) -> str:
    """A number with its noun: ``1 feature``, ``2 features``."""
    return f"{count} {noun}" + "s" * (count != 1)


def is_unicode(text: str) -> bool:
    """Whether a text is made of whole characters: JSON may hold one half of a character's two escapes,
    such as of a cut emoji, which tokenizers refuse.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
