"""The parameters of an analysis, and their digest: same scan, same bundle, same spec, same result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from pipeline.model import taxonomy

ALGORITHM_VERSION = "9"
"""Increased with every change of the pure pipeline that can change a result."""


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """All parameters that can change a result, apart from the scan and the models."""

    working_mpp_um: float = 0.25
    """µm per pixel of the segmentation; a leukocyte is 40 to 80 px across"""
    outline_mpp_um: float = 0.19
    """µm per pixel at which the outline of each found cell is drawn. Measured: docs/accuracy.md"""
    assumed_mpp_um: float = 0.10
    """used if the file states no scale and none can be measured: 100× oil immersion"""
    tile_core_px: int = 768
    halo_px: int = 128
    """32 µm at the working scale: a cell with its centre on the seam is visible completely, with its
    neighbours (Source: Bain, Blood Cells, 6th ed.: the widest leukocyte, the monocyte, is 12 to 20 µm
    across)"""
    whole_up_to_tiles: int = 6
    """Scans with more tiles of tissue are searched coarsely first, and segmented around candidates only."""
    candidate_mpp_um: float = 0.5
    """µm per pixel of the coarse search. Measured, like the threshold: docs/performance.md"""
    candidate_threshold: float = 0.2
    """probability of a cell above which a pixel of the coarse search belongs to a candidate"""
    candidate_core_px: int = 960
    candidate_halo_px: int = 32
    """16 µm at the scale of the coarse search, which only has to detect that something is there"""
    cell_threshold: float = 0.5
    """probability of cytoplasm or nucleus above which a pixel belongs to a cell"""
    nucleus_threshold: float = 0.5
    min_nucleus_um2: float = 8.0
    """smaller spots are debris or the granulomere of a platelet; a small lymphocyte has a nucleus of 30"""
    min_cell_um2: float = 18.0
    split_distance_um: float = 3.0
    """nuclei whose inscribed circles have centres farther apart may belong to two cells"""
    immature_odds: float = 0.5
    """Factor on the odds of blasts, immature granulocytes and erythroblasts, which are far rarer in smears
    than in the training crops, where all classes are about equally frequent (healthy adults: under 1 %.
    Source: Palmer et al., ICSH 2015, IJLH 37:287; docs/accuracy.md)"""
    artefact_odds: float = 0.25
    """Factor on the odds of an artefact if a whole nucleus was outlined: the artefacts in training data are
    red cells and background, without a nucleus. Measured: docs/accuracy.md"""
    platelet_odds: float = 0.02
    """the same for platelets, which have no nucleus, though a clump may seem to have one"""
    whole_nucleus_um2: float = 25.0
    """the least area of a whole nucleus; that of a small lymphocyte has 30, or less if the scale is
    estimated"""
    accept_probability: float = 0.60
    leaf_probability: float = 0.70
    max_disagreement: float = 0.40
    min_leukocytes: int = 100
    """Source: CLSI H20-A2 counts 200; 100 is the least that ICSH calls a differential"""
    left_shift_percent: float = 10.0
    """bands and immature granulocytes. Source: Palmer et al., ICSH 2015, Int J Lab Hematol 37:287"""

    @property
    def digest(self) -> str:
        """Hex sha256 of the parameters and the versions of taxonomy and algorithm."""
        document = {
            "algorithm": ALGORITHM_VERSION,
            "taxonomy": taxonomy.VERSION,
            "parameters": asdict(self),
        }
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
