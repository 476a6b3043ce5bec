"""Sentence embeddings."""

import subprocess
import sys


def test_missing_packages_are_named() -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(('sentence_transformers', 'transformers'))\n"
        "from promptmii.errors import MissingDependencyError\n"
        "from promptmii.models.sentences import embed\n"
        "try: embed(['a'])\n"
        "except MissingDependencyError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "promptmii[rivals]" in done.stdout, done.stderr
