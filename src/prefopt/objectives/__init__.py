"""Objectives: pure functions from log-ratios to one loss per comparison, by name or by class.

>>> import torch
>>> from prefopt import objectives
>>> rk = objectives.get("dpo_rk", beta=0.3, nu=3.0)
>>> rk(torch.zeros(2), torch.zeros(2), torch.tensor([False, True]))  # a win and a tie
tensor([1.3863, 0.6931])
"""

from prefopt.objectives.base import Objective, State, Unpaired, apply_ties_policy, as_shares
from prefopt.objectives.batchwise import AOT, BCO, KTO, AOTUnpaired, APOZeroUnpaired, BetaDPO
from prefopt.objectives.bregman import BPO
from prefopt.objectives.conditions import ConditionPO, ControlNetPP
from prefopt.objectives.diffusion import LRM, DiffusionDPO, DiffusionKTO, MaPO, StepDPO
from prefopt.objectives.hallucination import HADPO, POVID, VDPO
from prefopt.objectives.images import MDPO, OPADPO, SVCO, SymMPO
from prefopt.objectives.long_video import LongVPO
from prefopt.objectives.margins import (
    AverageMargin,
    ClippedMargin,
    FDivergenceMargin,
    LengthDesensitizedMargin,
    Margin,
    SegmentMargin,
    margin_from_name,
)
from prefopt.objectives.mixture import MPO, Mixture
from prefopt.objectives.pairwise import (
    CDPO,
    DPO,
    EXO,
    FDPO,
    FPO,
    IPO,
    LDDPO,
    RDPO,
    WPO,
    DiscoPOP,
    Hinge,
    Pairwise,
    RobustDPO,
)
from prefopt.objectives.pointwise import DPOP, NCA, SPPO, APODown, APOZero, BCOPair
from prefopt.objectives.reference_free import ORPO, SFT, AlphaPO, ContrastivePO, SimPO, SLiC
from prefopt.objectives.registry import (
    Hyperparameter,
    aliases,
    canonical_name,
    get,
    hyperparameter_names,
    hyperparameters,
    names,
)
from prefopt.objectives.robust import SPA, SSAPO
from prefopt.objectives.segments import DDPO, CHiP
from prefopt.objectives.sides import Branch, Score, Sides
from prefopt.objectives.ties import Davidson, RaoKupper, TieModel
from prefopt.objectives.triple import TPO
from prefopt.objectives.weighted import Weighted

__all__ = [
    "AOT",
    "BCO",
    "BPO",
    "CDPO",
    "DDPO",
    "DPO",
    "DPOP",
    "EXO",
    "FDPO",
    "FPO",
    "HADPO",
    "IPO",
    "KTO",
    "LDDPO",
    "LRM",
    "MDPO",
    "MPO",
    "NCA",
    "OPADPO",
    "ORPO",
    "POVID",
    "RDPO",
    "SFT",
    "SPA",
    "SPPO",
    "SSAPO",
    "SVCO",
    "TPO",
    "VDPO",
    "WPO",
    "AOTUnpaired",
    "APODown",
    "APOZero",
    "APOZeroUnpaired",
    "AlphaPO",
    "AverageMargin",
    "BCOPair",
    "BetaDPO",
    "Branch",
    "CHiP",
    "ClippedMargin",
    "ConditionPO",
    "ContrastivePO",
    "ControlNetPP",
    "Davidson",
    "DiffusionDPO",
    "DiffusionKTO",
    "DiscoPOP",
    "FDivergenceMargin",
    "Hinge",
    "Hyperparameter",
    "LengthDesensitizedMargin",
    "LongVPO",
    "MaPO",
    "Margin",
    "Mixture",
    "Objective",
    "Pairwise",
    "RaoKupper",
    "RobustDPO",
    "SLiC",
    "Score",
    "SegmentMargin",
    "Sides",
    "SimPO",
    "State",
    "StepDPO",
    "SymMPO",
    "TieModel",
    "Unpaired",
    "Weighted",
    "aliases",
    "apply_ties_policy",
    "as_shares",
    "canonical_name",
    "get",
    "hyperparameter_names",
    "hyperparameters",
    "margin_from_name",
    "names",
]
