"""Readers of data sets as published, one for each layout, and of several together.

rows = read_parts((DataPart("C-NMC"), DataPart("cnmc_subset")), Path("data"))
checked = readable(rows)          # .rows, .skipped, .sentence

Recipes define the class of a label: see `picture_sets.class_index`.
"""

from pipeline.training.data.datasets.aml_lmu import read_aml_lmu
from pipeline.training.data.datasets.class_folders import read_class_folders
from pipeline.training.data.datasets.cnmc import read_cnmc
from pipeline.training.data.datasets.layouts import Layout, find_data
from pipeline.training.data.datasets.parts import VAL_SHARE, DataPart, joined, read_part, read_parts
from pipeline.training.data.datasets.picture_rows import ReadableRows, readable

__all__ = [
    "VAL_SHARE",
    "DataPart",
    "Layout",
    "ReadableRows",
    "find_data",
    "joined",
    "read_aml_lmu",
    "read_class_folders",
    "read_cnmc",
    "read_part",
    "read_parts",
    "readable",
]
