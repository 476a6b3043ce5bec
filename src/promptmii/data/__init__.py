"""Data in: tables of any kind become tasks, tasks become episodes."""

from pathlib import Path

from promptmii.data.load import Source, read_table
from promptmii.data.sample import LoadedTask, draw_notes, draw_query, draw_support, load_task, sample
from promptmii.data.sources import bundled_folder, find_tasks, read_tasks
from promptmii.data.table import Table
from promptmii.data.texts import Texts, read_texts

__all__ = [
    "LoadedTask",
    "Source",
    "Table",
    "Texts",
    "bundled_folder",
    "demo_path",
    "draw_notes",
    "draw_query",
    "draw_support",
    "find_tasks",
    "load_task",
    "read_table",
    "read_tasks",
    "read_texts",
    "sample",
]


def demo_path() -> Path:
    """The bundled CSV: support tickets of an invented shop, written for this package."""
    return Path(__file__).with_name("demo.csv")
