"""A corpus: many tasks from the hub or from folders, cleaned, and split so that no text of one split is in another."""

from promptmii.data.corpus_files import SPLITS, Split, Tasks, corpus_reference, read_corpus, write_split

__all__ = ["SPLITS", "Split", "Tasks", "corpus_reference", "read_corpus", "write_split"]
