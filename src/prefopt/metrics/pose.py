"""Agreement of poses: COCO's similarity of keypoints, average precision over people, and a hit rate.

Legend: N people, M others, K keypoints (17 in COCO's order), T thresholds, I images. A person is (K, 3): x and y in pixels and
how sure the keypoint is; 0 is one that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035),  # nose, eyes, ears
    *(0.079, 0.079, 0.072, 0.072, 0.062, 0.062),  # shoulders, elbows, wrists
    *(0.107, 0.107, 0.087, 0.087, 0.089, 0.089),  # hips, knees, ankles
)
"""How far apart people set a keypoint, as a share of the person's size; half of the constants that COCO calls k."""
THRESHOLDS = tuple(round(0.5 + 0.05 * n, 2) for n in range(10))
RECALLS = 101
"""Places between recall 0 and 1 at which COCO reads the precision."""
MOST_PEOPLE = 20
"""Found people of an image that count, the surest first."""


def keypoint_similarity(
    true_NK3: Tensor, found_MK3: Tensor, area_N: Tensor, sigmas: Sequence[float] = COCO_SIGMAS
) -> Tensor:
    """OKS = sum_k exp(-d_k^2 / (2 A (2 sigma_k)^2)) [v_k > 0] / sum_k [v_k > 0], of each true with each found person.

    Args:
        true_NK3: true people; only keypoints with v > 0 count.
        found_MK3: found people; their third number is of no account.
        area_N: (N,) A of each true person, in square pixels.
        sigmas: of the keypoints.

    Returns:
        (N, M) in [0, 1], in double precision; 0 for a true person without keypoints.

    Raises:
        ValueError: other shapes, or areas that are not positive.
    """
    near_NMK = _nearness(true_NK3, found_MK3, area_N, sigmas)
    seen_N1K = (true_NK3[:, None, :, 2] > 0).double()
    return (near_NMK * seen_N1K).sum(-1) / seen_N1K.sum(-1).clamp(min=1)


def agreeing_similarity(
    true_NK3: Tensor, found_MK3: Tensor, area_N: Tensor, sigmas: Sequence[float] = COCO_SIGMAS
) -> Tensor:
    """OKS as the release of condition preference optimization takes it: over the keypoints that both people show.

    Args and errors are those of `keypoint_similarity`. A keypoint that only one shows is left out above and below the line,
    so what is missed is not punished.
    """
    near_NMK = _nearness(true_NK3, found_MK3, area_N, sigmas)
    both_NMK = ((true_NK3[:, None, :, 2] > 0) & (found_MK3[None, :, :, 2] > 0)).double()
    return (near_NMK * both_NMK).sum(-1) / both_NMK.sum(-1).clamp(min=1)


def person_area(people_NK3: Tensor) -> Tensor:
    """(N,) area of the box round the keypoints with v > 0, in square pixels and at least 1.

    Stands in for the area of the person's outline, which poses do not tell.
    """
    seen_NK1 = people_NK3[..., 2:] > 0
    xy_NK2 = people_NK3[..., :2].double()
    if not people_NK3.shape[0]:
        return torch.zeros(0, dtype=torch.float64, device=people_NK3.device)
    low_N2 = xy_NK2.masked_fill(~seen_NK1, torch.inf).amin(1)
    high_N2 = xy_NK2.masked_fill(~seen_NK1, -torch.inf).amax(1)
    return (high_N2 - low_N2).clamp(min=0).prod(-1).clamp(min=1)


def keypoint_ap(
    true: Sequence[Tensor],
    found: Sequence[Tensor],
    areas: Sequence[Tensor] | None = None,
    scores: Sequence[Tensor] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    sigmas: Sequence[float] = COCO_SIGMAS,
) -> float:
    """Average precision of people by their keypoints, as COCO takes it, mean over thresholds of OKS.

    At each threshold the found people of an image, the surest first, take the true person nearest to them that is free; the
    precision is then read at 101 recalls. True people without keypoints do not count.

    Args:
        true: (N, K, 3) true people of each image.
        found: (M, K, 3) found people of each image; at most 20 count.
        areas: (N,) of the true people, in square pixels; None: `person_area`.
        scores: (M,) how sure each found person is; None: the mean of the keypoints that are there.
        thresholds: of OKS, which a hit reaches.
        sigmas: of the keypoints.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: another number of images, other shapes, or no true person with a keypoint.
    """
    hits, sure, people = [], [], 0
    for i, (true_NK3, found_MK3) in enumerate(_images(true, found)):
        counted = (true_NK3[..., 2] > 0).any(-1)
        area_N = person_area(true_NK3) if areas is None else areas[i]
        score_M = person_score(found_MK3) if scores is None else scores[i]
        best = score_M.argsort(descending=True, stable=True)[:MOST_PEOPLE]
        oks_NM = keypoint_similarity(true_NK3[counted], found_MK3[best], area_N[counted], sigmas)
        hits.append(_matched(oks_NM, thresholds))
        sure.append(score_M[best].double())
        people += int(counted.sum())
    if not people:
        raise ValueError("no true person shows a keypoint, so there is no precision: needed at least one")
    order = torch.cat(sure).argsort(descending=True, stable=True)
    hits_TP = torch.cat(hits, 1)[:, order].double()
    if not hits_TP.shape[1]:
        return 0.0
    tp_TP, rank_P = hits_TP.cumsum(1), torch.arange(1, hits_TP.shape[1] + 1)
    recall_TP, precision_TP = tp_TP / people, tp_TP / rank_P
    precision_TP = precision_TP.flip(1).cummax(1).values.flip(1)  # the best at this recall or a higher one
    at_R = torch.linspace(0, 1, RECALLS, dtype=torch.float64)
    total = 0.0
    for recall_P, precision_P in zip(recall_TP, precision_TP, strict=True):
        place_R = torch.searchsorted(recall_P, at_R, side="left")
        reached = place_R < len(recall_P)
        total += float(precision_P[place_R[reached]].sum()) / RECALLS
    return total / len(thresholds)


def pose_hit_rate(
    true: Sequence[Tensor],
    found: Sequence[Tensor],
    areas: Sequence[Tensor] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    sigmas: Sequence[float] = COCO_SIGMAS,
) -> float:
    """Share of true people that someone found is near to, mean over thresholds: what the release calls mAP.

    It is a recall, not a precision: people too many cost nothing, and one found person may stand for several true ones.

    Args:
        true, found, areas, thresholds, sigmas: as for `keypoint_ap`; nearness is that of `agreeing_similarity`.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: another number of images, other shapes, or no true person with a keypoint.
    """
    hits, people = 0, 0
    for i, (true_NK3, found_MK3) in enumerate(_images(true, found)):
        counted = (true_NK3[..., 2] > 0).any(-1)
        area_N = person_area(true_NK3) if areas is None else areas[i]
        oks_NM = agreeing_similarity(true_NK3[counted], found_MK3, area_N[counted], sigmas)
        people += len(oks_NM)
        if oks_NM.numel():
            best_N = oks_NM.amax(1)
            hits += sum(int((best_N >= threshold).sum()) for threshold in thresholds)
    if not people:
        raise ValueError("no true person shows a keypoint, so there is no hit rate: needed at least one")
    return hits / (people * len(thresholds))


def pose_agreement(true_NK3: Tensor, found_MK3: Tensor) -> float:
    """How alike the people of two pictures are: OKS of the best pairing, over the larger number of people.

    Args:
        true_NK3, found_MK3: people of either picture; those without keypoints do not count.

    Returns:
        A number in [0, 1]; 1 where alike, also where there is nobody in either.
    """
    from scipy.optimize import linear_sum_assignment

    true_NK3, found_MK3 = (x[(x[..., 2] > 0).any(-1)] for x in (true_NK3, found_MK3))
    if not len(true_NK3) or not len(found_MK3):
        return float(len(true_NK3) == len(found_MK3))
    oks_NM = keypoint_similarity(true_NK3, found_MK3, person_area(true_NK3)).cpu()
    rows, columns = linear_sum_assignment(oks_NM.numpy(), maximize=True)
    return float(oks_NM[rows, columns].sum()) / max(oks_NM.shape)


def person_score(people_NK3: Tensor) -> Tensor:
    """(N,) mean third number of the keypoints that are there, 0 for people without any."""
    sure_NK = people_NK3[..., 2].double()
    there_NK = sure_NK > 0
    return (sure_NK * there_NK).sum(-1) / there_NK.sum(-1).clamp(min=1)


def _nearness(true_NK3: Tensor, found_MK3: Tensor, area_N: Tensor, sigmas: Sequence[float]) -> Tensor:
    """(N, M, K) exp(-d^2 / (2 A (2 sigma)^2))."""
    for people in (true_NK3, found_MK3):
        if people.ndim != 3 or people.shape[1:] != (len(sigmas), 3):
            raise ValueError(
                f"people have the shape {tuple(people.shape)}; needed (people, {len(sigmas)}, 3): x, y, sureness"
            )
    if area_N.shape != (len(true_NK3),) or not bool((area_N > 0).all()):
        raise ValueError(
            f"areas of the shape {tuple(area_N.shape)} for {len(true_NK3)} people, the least "
            f"{area_N.min().item() if area_N.numel() else 'none'}: needed one positive number each"
        )
    sigma_K = torch.tensor(sigmas, dtype=torch.float64, device=true_NK3.device)
    gap_NMK2 = true_NK3[:, None, :, :2].double() - found_MK3[None, :, :, :2].double()
    return torch.exp(-gap_NMK2.square().sum(-1) / (2 * area_N.double()[:, None, None] * (2 * sigma_K) ** 2))


def _matched(oks_NM: Tensor, thresholds: Sequence[float]) -> Tensor:
    """(T, M) whether each found person, the surest first, got a true one that was still free."""
    oks = oks_NM.tolist()
    hits = torch.zeros(len(thresholds), oks_NM.shape[1], dtype=torch.bool)
    for t, threshold in enumerate(thresholds):
        free = set(range(len(oks)))
        for m in range(oks_NM.shape[1]):
            # of equally near ones the later, as in COCO's own code
            near = max(free, key=lambda n: (oks[n][m], n), default=None)
            if near is not None and oks[near][m] >= min(threshold, 1 - 1e-10):
                free.discard(near)
                hits[t, m] = True
    return hits


def _images(true: Sequence[Tensor], found: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    if len(true) != len(found):
        raise ValueError(f"poses of {len(true)} and of {len(found)} images: needed as many of each")
    return [(a.detach().cpu(), b.detach().cpu()) for a, b in zip(true, found, strict=True)]
