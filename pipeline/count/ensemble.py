"""Combines the members of the ensemble into one classification."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import CallStatus, CellCall, Probabilities
from pipeline.model.spec import PipelineSpec
from pipeline.model.taxonomy import CHILDREN, GROUPS, LEAVES, CellClass, group_of, leaves_of

_POSITION = {leaf: position for position, leaf in enumerate(LEAVES)}
_IMMATURE = (CellClass.IMMATURE_GRANULOCYTE, CellClass.BLAST, CellClass.ERYTHROBLAST)
_IS_IMMATURE = np.array([group_of(leaf) in _IMMATURE for leaf in LEAVES])


def call_cell(members: Probabilities, nucleus_um2: float, spec: PipelineSpec) -> CellCall:
    """Return the classification of one cell from the members' probabilities, float32 (M, L) by
    `taxonomy.LEAVES`.

    `nucleus_um2` is the area of its outlined nucleus. The mean, corrected for the class frequencies in smears
    (`PipelineSpec.immature_odds` and the odds after it), decides the group (neutrophil, immature granulocyte,
    …) first. Within the group, the leaf is reported if its share is high enough.
    Source: averaging of three models, Panin, Mamedov, Tarakanov 2023.
    """
    raw_mean = members.mean(axis=0, dtype=np.float64)
    disagreement = float(0.5 * np.abs(members - raw_mean).sum(axis=1).mean())
    mean = _expected(raw_mean, nucleus_um2, spec)
    group = max(GROUPS, key=lambda g: _mass(mean, g))
    named = _named(mean, group, spec)
    return CellCall(
        cell_class=named,
        status=_status(group, _mass(mean, group), disagreement, spec),
        probability=_mass(mean, named),
        probabilities={leaf: float(mean[i]) for leaf, i in _POSITION.items()},
        disagreement=disagreement,
    )


def _expected(mean: NDArray[np.float64], nucleus_um2: float, spec: PipelineSpec) -> NDArray[np.float64]:
    """Return the probabilities, corrected for the frequency of immature classes in smears, and of artefacts
    and platelets among whole nuclei. Source: Bayes' rule for a shift of priors, Saerens et al. 2002, Neural
    Computation 14:21."""
    odds = np.where(_IS_IMMATURE, spec.immature_odds, 1.0)
    if nucleus_um2 >= spec.whole_nucleus_um2:
        odds[_POSITION[CellClass.ARTEFACT]] = spec.artefact_odds
        odds[_POSITION[CellClass.PLATELET]] = spec.platelet_odds
    shares: NDArray[np.float64] = mean * odds
    return np.asarray(shares / shares.sum(), np.float64)


def _mass(mean: NDArray[np.float64], cell_class: CellClass) -> float:
    return float(sum(mean[_POSITION[leaf]] for leaf in leaves_of(cell_class)))


def _named(mean: NDArray[np.float64], group: CellClass, spec: PipelineSpec) -> CellClass:
    if group not in CHILDREN:
        return group
    leaf = max(CHILDREN[group], key=lambda c: _mass(mean, c))
    return leaf if _mass(mean, leaf) >= spec.leaf_probability * _mass(mean, group) else group


def _status(group: CellClass, probability: float, disagreement: float, spec: PipelineSpec) -> CallStatus:
    if group is CellClass.ARTEFACT:
        return CallStatus.ARTEFACT
    if probability < spec.accept_probability or disagreement > spec.max_disagreement:
        return CallStatus.UNIDENTIFIED
    return CallStatus.ACCEPTED
