"""A score for `ScriptedModel` that looks for the label in the text."""


def keyword(chat, option):
    """High if the input contains the first word of the label."""
    return 2.0 if option.split()[0] in chat[-1]["content"].splitlines()[-1] else 0.0
