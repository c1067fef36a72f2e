"""Data sets as published, read into rows: one reader for each layout, and several put together.

rows = read_parts((DataPart(".", classes={"all": "all", "hem": "normal"}),), Path("C-NMC"))
checked = readable(rows)          # .rows, .skipped, .sentence
targets = class_indices(checked.rows, ("normal", "all"))
"""

from pipeline.training.datasets.aml_lmu import LabelRule, read_aml_lmu
from pipeline.training.datasets.class_folders import read_class_folders
from pipeline.training.datasets.cnmc import ByFold, BySubject, read_cnmc
from pipeline.training.datasets.layouts import Layout, find_data
from pipeline.training.datasets.parts import DataPart, Reading, class_indices, read_part, read_parts
from pipeline.training.datasets.pictures import ReadableRows, readable

__all__ = [
    "ByFold",
    "BySubject",
    "DataPart",
    "LabelRule",
    "Layout",
    "ReadableRows",
    "Reading",
    "class_indices",
    "find_data",
    "read_aml_lmu",
    "read_class_folders",
    "read_cnmc",
    "read_part",
    "read_parts",
    "readable",
]
