"""Data sets as published, read into rows: one reader for each layout, and several put together.

rows = read_parts((DataPart("C-NMC"), DataPart("cnmc_subset")), Path("data"))
checked = readable(rows)          # .rows, .skipped, .sentence

Which class of a task a label means is for its recipe to say: see `picture_sets.class_index`.
"""

from pipeline.training.data.datasets.aml_lmu import LabelRule, read_aml_lmu
from pipeline.training.data.datasets.class_folders import read_class_folders
from pipeline.training.data.datasets.cnmc import ByFold, BySubject, read_cnmc
from pipeline.training.data.datasets.layouts import Layout, find_data
from pipeline.training.data.datasets.parts import DataPart, Reading, joined, read_part, read_parts
from pipeline.training.data.datasets.picture_rows import ReadableRows, readable

__all__ = [
    "ByFold",
    "BySubject",
    "DataPart",
    "LabelRule",
    "Layout",
    "ReadableRows",
    "Reading",
    "find_data",
    "joined",
    "read_aml_lmu",
    "read_class_folders",
    "read_cnmc",
    "read_part",
    "read_parts",
    "readable",
]
