"""Recognises the layout of a data set's folder."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pipeline.model.errors import UsageError
from pipeline.training.data.datasets.aml_lmu import aml_root
from pipeline.training.data.datasets.class_folders import class_folders
from pipeline.training.data.datasets.cnmc import fold_root


class Layout(StrEnum):
    """The layout of a data set on disk."""

    TABLE = "table"
    """`images/` and `labels.csv`: a set of the data pack"""
    PACK = "pack"
    """folders, each with a `labels.csv`: the data pack itself"""
    AML_LMU = "aml-lmu"
    """AML-Cytomorphology_LMU as published: `<CODE>/<CODE>_<nnnn>.tiff`, `annotations.dat`"""
    CNMC = "cnmc"
    """C-NMC 2019 as published: `fold_<n>/{all,hem}/UID_<subject>_<image>_<cell>_{all|hem}.bmp`"""
    CLASS_FOLDERS = "class-folders"
    """`<class>/<picture>`"""


def find_data(root: Path) -> Layout:
    """Return the layout of a folder.

    Raises: UsageError, where the folder is missing or has none of the layouts.
    """
    if not root.is_dir():
        raise UsageError(f"The data folder '{root.name}' is missing.", code="no_data_folder")
    if (root / "labels.csv").is_file():
        return Layout.TABLE
    if any(root.glob("*/labels.csv")):
        return Layout.PACK
    if fold_root(root) is not None:
        return Layout.CNMC
    if aml_root(root) is not None:
        return Layout.AML_LMU
    if class_folders(root):
        return Layout.CLASS_FOLDERS
    raise UsageError(
        f"'{root.name}' has no layout of a data set: neither labels.csv, nor fold_<n>/all and hem as C-NMC "
        "2019, nor the folders of codes of AML-Cytomorphology_LMU, nor a folder for each class.",
        code="wrong_layout",
    )
