"""AML-Cytomorphology_LMU as published: a folder for each code, and what every annotator said.

    AML-Cytomorphology_LMU/<CODE>/<CODE>_<nnnn>.tiff
    annotations.dat: path, code, then re-annotations, separated by blanks or commas; nan or - for none

`annotations.dat` is in the folder of the codes or next to it. It may be missing: then a picture's folder is
its only annotation. File names do not identify patients; ten consecutive numbers are one group.

Source: Matek et al., Nat Mach Intell 1:538 (2019); TCIA, doi 10.7937/tcia.2019.36f5o9ld.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from pipeline.model.errors import UsageError
from pipeline.training.data.datasets.picture_rows import pictures_in, size_px
from pipeline.training.data.datasets.splits import block_of, split_groups
from pipeline.training.data.label_tables import LabelRow, Split
from pipeline.training.data.sources import AML_LMU, known_source

LABEL_OF_CODE = {
    "BAS": "basophil",
    "EBO": "erythroblast",
    "EOS": "eosinophil",
    "KSC": "smudge",
    "LYA": "lymphocyte_atypical",
    "LYT": "lymphocyte",
    "MMZ": "metamyelocyte",
    "MOB": "monoblast",
    "MON": "monocyte",
    "MYB": "myelocyte",
    "MYO": "myeloblast",
    "NGB": "neutrophil_band",
    "NGS": "neutrophil_segmented",
    "PMB": "promyelocyte_bilobed",
    "PMO": "promyelocyte",
}
"""The data pack's names of the 15 codes."""
ANNOTATIONS = "annotations.dat"
_NAME = re.compile(r"(?P<code>[A-Z]{3})_(?P<number>\d+)\.tiff?")
_NONE = frozenset({"", "-", "nan", "NaN", "none", "None", "NA"})


def aml_root(root: Path) -> Path | None:
    """Return the folder that holds the folders of codes: `root` or the one published below it; else None."""
    for folder in (root, root / AML_LMU):
        if any((folder / code).is_dir() for code in LABEL_OF_CODE):
            return folder
    return None


def read_aml_lmu(root: Path, val_share: float) -> tuple[LabelRow, ...]:
    """Return a row for each picture, sorted by code and number; `label_raw` is the code of
    the first annotation, that of the folder, as in the publication.

    Pictures listed in `annotations.dat` only have rows, too: `readable` reports them as missing.

    Raises: UsageError, where the layout is another, a code has no pictures, or a line cannot be read.
    """
    folder = aml_root(root)
    if folder is None:
        raise UsageError(f"'{root.name}' has no folders of codes such as BAS.", code="wrong_layout")
    annotated = _annotations(folder)
    pictures = {path.name: path for code in LABEL_OF_CODE for path in pictures_in(folder / code)}
    pictures |= {name: folder / name[:3] / name for name in annotated if name not in pictures}
    empty = [
        code for code in LABEL_OF_CODE if not any(path.parent.name == code for path in pictures.values())
    ]
    if empty:
        raise UsageError(f"{AML_LMU} has no pictures of {', '.join(empty)}.", code="empty_class")
    chosen = {name: (annotated.get(name) or (_code(path),))[0] for name, path in pictures.items()}
    labels: defaultdict[str, list[str]] = defaultdict(list)
    for name, path in pictures.items():
        labels[_group(path)].append(chosen[name])
    sides = split_groups(labels, val_share)
    return tuple(
        _row(path, chosen[name], annotated.get(name, ()), sides) for name, path in sorted(pictures.items())
    )


def _row(path: Path, code: str, annotations: tuple[str, ...], sides: dict[str, Split]) -> LabelRow:
    width_px, height_px = size_px(path)
    return LabelRow(
        source=known_source(AML_LMU),
        image=path,
        mask=None,
        label=LABEL_OF_CODE[code],
        label_raw=code,
        split=sides[_group(path)],
        group=_group(path),
        subject="",
        width_px=width_px,
        height_px=height_px,
        boxes=(),
        annotations=annotations or (code,),
    )


def _code(path: Path) -> str:
    return _matched(path)["code"]


def _group(path: Path) -> str:
    named = _matched(path)
    return f"{named['code']}_{block_of(int(named['number'])):05}"


def _matched(path: Path) -> re.Match[str]:
    named = _NAME.fullmatch(path.name)
    if named is None or named["code"] != path.parent.name:
        raise UsageError(
            f"{path.parent.name}/{path.name} is not named as in {AML_LMU}: <CODE>/<CODE>_<nnnn>.tiff.",
            code="wrong_layout",
        )
    return named


def _annotations(folder: Path) -> dict[str, tuple[str, ...]]:
    """By the picture's name: the first annotation, then the re-annotations, "" where there is none."""
    table = next((at / ANNOTATIONS for at in (folder, folder.parent) if (at / ANNOTATIONS).is_file()), None)
    if table is None:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for line, text in enumerate(table.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not text.strip() or text.startswith("#"):
            continue
        path, *said = (part.strip() for part in (text.split(",") if "," in text else text.split()))
        codes = tuple("" if code in _NONE else code for code in said)
        name = path.replace("\\", "/").rsplit("/", 1)[-1]
        known = all(code in LABEL_OF_CODE for code in codes if code)
        if not codes or not codes[0] or not known or _NAME.fullmatch(name) is None or name in found:
            raise UsageError(f"{ANNOTATIONS}, line {line}, cannot be read.", code="bad_row")
        found[name] = codes
    return found
