"""Whether a motion does what its caption says, word by word: exact rules on features in physical units.

| word | applies to | is right if |
|---|---|---|
| `move` | all | it stands, walks straight, circles, sidesteps, jumps or squats, whichever way and however often |
| `direction` | walks, circles, sidesteps | it goes the way that was asked for |
| `gesture` | all but jumps and squats | arms stay down, or one of them waves or is raised |
| `side` | gestures | it is that arm, and not the other |
| `count` | waves, jumps, squats | it is done so often |
| `speed` | where said | it is as slow or as quick |

Legend of shape suffixes: B motions, F frames, S = 2 sides (left, right), D = 36 features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prefopt.motion.stick import STICK
from prefopt.worlds.motion.kinematics import BACK, HEIGHT, RAISED, WALK
from prefopt.worlds.motion.task import COUNTED, OPPOSITES, Program

WORDS = ("move", "direction", "gesture", "side", "count", "speed")
SHORTEST = 8
"""Frames that a motion must have to be judged."""

STRAIGHT = 1.2
"""Radians: whoever turns less goes straight ahead."""
ASIDE = 0.8
"""Metres: whoever strays less to where nothing was asked keeps to the way."""
PLACE, LEVEL = 0.6, 0.12
"""Metres: whoever stands strays less, and rises and sinks less."""
FAR = {"forward": 1.5, "backward": 1.0, "circle": 1.2, "sidestep": 1.0}
"""Metres: whoever goes somewhere goes farther."""
TURNS = (4.2, 8.5)
"""Radians of a circle."""
AIRBORNE, LANDED = 0.12, 0.05
"""Metres above the height of standing that begin and end a jump."""
LOW, STOOD = 0.18, 0.09
"""Metres below it that begin and end a squat."""
HAND_UP, UP_SHARE, DOWN_SHARE = 0.6, 0.45, 0.2
"""A hand that far above the root is up; an arm is raised if it is in more, at rest if in fewer than these shares of the frames."""
SWAY = 0.1
"""Metres to either side of a raised hand's place that a wave passes."""
SLOW, QUICK = (0.5, 0.76), 1.275
"""Factors of the speed between which walking is slow, and above which it is quick."""

HANDS = tuple(4 + 3 * (STICK.skeleton.joints.index(hand) - 1) for hand in ("l_hand", "r_hand"))
"""First feature of each."""


def verdicts(programs: Sequence[Program], features_BFD: Tensor) -> dict[str, Tensor]:
    """Each (B,) float: verdicts 0 or 1 by `WORDS`, NaN for those that a program does not ask for; `pass`, 1 if all are 1; `attr`, their mean.

    Args:
        programs: what was asked for.
        features_BFD: motions of one length, in physical units; a motion with numbers that are not finite is right in nothing.

    Raises:
        ValueError: other numbers of motions, another width, or motions too short to judge.
    """
    if features_BFD.dim() != 3 or features_BFD.shape[-1] != STICK.width or len(features_BFD) != len(programs):
        raise ValueError(
            f"motions of the shape {tuple(features_BFD.shape)} for {len(programs)} captions; needed one motion each, of "
            f"(frames, {STICK.width}) features"
        )
    if features_BFD.shape[1] < SHORTEST:
        raise ValueError(
            f"a motion has {features_BFD.shape[1]} frames; needed {SHORTEST} or more to judge it"
        )
    finite_B = features_BFD.isfinite().all(2).all(1)
    seen = _seen(features_BFD.where(finite_B[:, None, None], 0.0).double())
    move_B, direction_B, count_B = _moves(programs, seen)
    gesture_B, side_B, waves_B = _gestures(programs, seen)
    rows = {
        "move": move_B,
        "direction": direction_B,
        "gesture": gesture_B,
        "side": side_B,
        "count": torch.where(count_B.isnan(), waves_B, count_B),
        "speed": _speeds(programs, seen),
    }
    table = torch.stack(list(rows.values()))
    table = torch.where(finite_B | table.isnan(), table, 0.0)
    found = dict(zip(rows, table, strict=True))
    return found | {"pass": (table != 0).all(0).float(), "attr": table.nanmean(0)}


def _asked(programs: Sequence[Program], **rules: object) -> Tensor:
    """(B,) whether each program has all of these attributes; of a tuple, any of it."""
    return torch.tensor(
        [
            all(
                getattr(p, name) in value if isinstance(value, tuple) else getattr(p, name) == value
                for name, value in rules.items()
            )
            for p in programs
        ],
        dtype=torch.bool,
    )


def _seen(features_BFD: Tensor) -> dict[str, Tensor]:
    """What rules look at, on the CPU."""
    x = features_BFD.cpu()
    frames = x.shape[1]
    turn_B, forward_B, left_B = x[..., :3].sum(1).unbind(1)
    hands_BFS3 = torch.stack([x[..., n : n + 3] for n in HANDS], 2)
    up_BFS = hands_BFS3[..., 1] - x[..., 3:4] > HAND_UP
    outward_BFS = hands_BFS3[..., 0] * torch.tensor((1.0, -1.0)) - RAISED[0]
    share_BS = up_BFS.double().mean(1)
    lift_BF = x[..., 3] - HEIGHT
    return {
        "turn": turn_B,
        "forward": forward_B,
        "left": left_B,
        "pace": forward_B / frames,
        "range": x[..., 3].amax(1) - x[..., 3].amin(1),
        "jumps": _times(lift_BF > AIRBORNE, lift_BF < LANDED),
        "squats": _times(lift_BF < -LOW, lift_BF > -STOOD),
        "up": share_BS > UP_SHARE,
        "down": share_BS < DOWN_SHARE,
        "waves": torch.stack(
            [
                _times(
                    up_BFS[..., s] & (outward_BFS[..., s] > SWAY),
                    up_BFS[..., s] & (outward_BFS[..., s] < -SWAY),
                )
                for s in (0, 1)
            ],
            1,
        ),
    }


def _times(begins_BF: Tensor, ends_BF: Tensor) -> Tensor:
    """(B,) how often something begins that must have ended before it may begin again; it may at first."""
    ready_B = torch.ones(len(begins_BF), dtype=torch.bool)
    times_B = torch.zeros(len(begins_BF), dtype=torch.int64)
    for begins_B, ends_B in zip(begins_BF.T, ends_BF.T, strict=True):
        times_B += ready_B & begins_B
        ready_B = (ready_B & ~begins_B) | ends_B
    return times_B


def _moves(programs: Sequence[Program], seen: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Verdicts on move, direction, and the count of jumps and squats."""
    turn_B, forward_B, left_B = seen["turn"], seen["forward"], seen["left"]
    straight_B = turn_B.abs() < STRAIGHT
    on_line_B, in_line_B = straight_B & (left_B.abs() < ASIDE), straight_B & (forward_B.abs() < ASIDE)
    round_B = (forward_B > FAR["circle"]) & (turn_B.abs() > TURNS[0]) & (turn_B.abs() < TURNS[1])
    here_B = (forward_B.abs() < ASIDE) & (left_B.abs() < ASIDE)
    does = {
        "stand": straight_B & (forward_B.abs() < PLACE) & (left_B.abs() < PLACE) & (seen["range"] < LEVEL),
        "forward": on_line_B & (forward_B > FAR["forward"]),
        "backward": on_line_B & (forward_B < -FAR["backward"]),
        "clockwise": round_B & (turn_B < 0),
        "counterclockwise": round_B & (turn_B > 0),
        "left": in_line_B & (left_B > FAR["sidestep"]),
        "right": in_line_B & (left_B < -FAR["sidestep"]),
        "jump": here_B & (seen["jumps"] > 0),
        "squat": here_B & (seen["squats"] > 0),
    }
    move_B, direction_B, count_B = (torch.full((len(programs),), torch.nan) for _ in range(3))
    wanted_B = torch.tensor([p.times for p in programs])
    for move, does_B in does.items():
        asked_B = _asked(programs, move=move)
        if move in OPPOSITES:
            direction_B = torch.where(asked_B, does_B.float(), direction_B)
            does_B = does_B | does[OPPOSITES[move]]
        move_B = torch.where(asked_B, does_B.float(), move_B)
        if move in COUNTED:
            count_B = torch.where(asked_B, (seen[f"{move}s"] == wanted_B).float(), count_B)
    return move_B, direction_B, count_B


def _gestures(programs: Sequence[Program], seen: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Verdicts on gesture, side, and the count of waves."""
    up_BS, down_BS = seen["up"], seen["down"]
    alone_BS = up_BS & down_BS.flip(1)
    # who waves with both arms, or with none, has no arm whose waves could be counted
    times_B = torch.where(alone_BS.any(1), (seen["waves"] * alone_BS).sum(1), -1)
    none = torch.full((len(programs),), torch.nan)
    asked = {kind: _asked(programs, gesture=kind) for kind in ("wave", "raise")}
    still_B = _asked(programs, gesture="none") & ~_asked(programs, move=COUNTED)
    gesture_B = torch.where(still_B, down_BS.all(1).float(), none)
    gesture_B = torch.where(asked["wave"], (times_B > 0).float(), gesture_B)
    gesture_B = torch.where(asked["raise"], (times_B == 0).float(), gesture_B)
    side_B = none
    for s, side in enumerate(("left", "right")):
        side_B = torch.where(_asked(programs, side=side), alone_BS[:, s].float(), side_B)
    wanted_B = torch.tensor([p.times for p in programs])
    return gesture_B, side_B, torch.where(asked["wave"], (times_B == wanted_B).float(), none)


def _speeds(programs: Sequence[Program], seen: dict[str, Tensor]) -> Tensor:
    """Verdicts on speed."""
    usual_B = torch.where(seen["pace"] > 0, WALK, -BACK)  # whichever way it goes: that is judged elsewhere
    factor_B = seen["pace"] / usual_B
    found_B = torch.full((len(programs),), torch.nan)
    slow_B, quick_B = (factor_B > SLOW[0]) & (factor_B < SLOW[1]), factor_B > QUICK
    found_B = torch.where(_asked(programs, speed="slowly"), slow_B.float(), found_B)
    return torch.where(_asked(programs, speed="quickly"), quick_B.float(), found_B)
