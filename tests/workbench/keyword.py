"""A follower that looks for a label in the text."""


def keyword(chat, option):
    """High where the first word of the label stands in the input."""
    return 2.0 if option.split()[0] in chat[-1]["content"].splitlines()[-1] else 0.0
