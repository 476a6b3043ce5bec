"""Reads tables of any kind, turns them into tasks, and draws episodes from tasks."""

from pathlib import Path

from promptmii.data.load import LoadedTask, load_task
from promptmii.data.readers import Source, read_table
from promptmii.data.sample import draw_notes, draw_query, draw_support, sample
from promptmii.data.table import Table
from promptmii.data.texts import Texts, read_texts

__all__ = [
    "LoadedTask",
    "Source",
    "Table",
    "Texts",
    "demo_path",
    "draw_notes",
    "draw_query",
    "draw_support",
    "load_task",
    "read_table",
    "read_texts",
    "sample",
]


def demo_path() -> Path:
    """The bundled demo CSV: support tickets of a fictional shop, written for this package."""
    return Path(__file__).with_name("demo.csv")
