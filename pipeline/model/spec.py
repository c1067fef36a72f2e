"""The parameters of an analysis, and their digest: same scan, same bundle, same spec, same result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from pipeline.model import taxonomy

ALGORITHM_VERSION = "8"
"""Raised with every change to the pure pipeline that can change a result."""


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """Everything that can change a result, apart from the scan and the models."""

    working_mpp_um: float = 0.25
    """µm per pixel of the segmentation; a leukocyte is 40 to 80 px across"""
    outline_mpp_um: float = 0.19
    """µm per pixel at which the outline of each found cell is drawn. Measured: docs/targets.md"""
    assumed_mpp_um: float = 0.10
    """where the file has no scale and nothing in it can be measured: 100× oil immersion"""
    tile_core_px: int = 768
    halo_px: int = 128
    """32 µm at the working scale: a cell whose centre lies on the seam is seen whole, and its neighbours too
    (Source: Bain, Blood Cells, 6th ed.: the widest leukocyte, the monocyte, is 12 to 20 µm across)"""
    whole_up_to_tiles: int = 6
    """Scans of more tiles with tissue are looked at coarsely first, and segmented around candidates only."""
    candidate_mpp_um: float = 0.5
    """µm per pixel of the coarse look. Measured, as the threshold: docs/performance.md"""
    candidate_threshold: float = 0.2
    """probability of a cell from which on a pixel of the coarse look is a candidate's"""
    candidate_core_px: int = 960
    candidate_halo_px: int = 32
    """16 µm at the scale of the coarse look: it only has to see that something is there"""
    cell_threshold: float = 0.5
    """probability of cytoplasm or nucleus above which a pixel belongs to a cell"""
    nucleus_threshold: float = 0.5
    min_nucleus_um2: float = 8.0
    """below it a stained spot is debris or a platelet's granulomere; a small lymphocyte's nucleus has 30"""
    min_cell_um2: float = 18.0
    split_distance_um: float = 3.0
    """nuclei whose inscribed-circle centres are farther apart may belong to two cells"""
    immature_odds: float = 0.5
    """By this the odds of blasts, immature granulocytes and erythroblasts are multiplied: smears hold far
    fewer than the crops that networks learn from, where each class is drawn nearly as often as any other
    (healthy adults: under 1 %. Source: Palmer et al., ICSH 2015, IJLH 37:287; docs/targets.md)"""
    artefact_odds: float = 0.25
    """By this the odds of an artefact are multiplied where a whole nucleus was outlined: the artefacts that
    classifiers learn from are red cells and bare ground, where none is. Measured: docs/targets.md"""
    platelet_odds: float = 0.02
    """the same for platelets, which have no nucleus; a clump of them may look as if it had"""
    whole_nucleus_um2: float = 25.0
    """from this area on; a small lymphocyte's nucleus has 30, which an estimated scale may make less"""
    accept_probability: float = 0.60
    leaf_probability: float = 0.70
    max_disagreement: float = 0.40
    min_leukocytes: int = 100
    """Source: CLSI H20-A2 counts 200; 100 is the least that ICSH calls a differential"""
    blast_flag_percent: float = 1.0
    left_shift_percent: float = 10.0
    """bands and immature granulocytes. Source: Palmer et al., ICSH 2015, Int J Lab Hematol 37:287"""

    @property
    def digest(self) -> str:
        """Hex sha256 over the parameters, the taxonomy's and the algorithm's version."""
        document = {
            "algorithm": ALGORITHM_VERSION,
            "taxonomy": taxonomy.VERSION,
            "parameters": asdict(self),
        }
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
