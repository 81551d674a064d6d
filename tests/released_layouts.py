"""Random checkpoints in the layouts in which MDM and the T2M evaluator are released, and the slow, obvious way to compute with them.

Sizes are small where the code does not fix them; names, nesting and what else is in the files are those of the releases.
"""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FEATURES, FRAMES = 263, 196

# -- MDM -----------------------------------------------------------------------------------------------------


class Part(nn.Module):
    """A module of named parts."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class Table(nn.Module):
    """A table of sinusoids, which MDM keeps in its checkpoints."""

    def __init__(self, width: int, rows: int = 5000) -> None:
        super().__init__()
        table = torch.zeros(rows, width)
        place = torch.arange(rows).float()[:, None]
        rate = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10000.0) / width))
        table[:, 0::2], table[:, 1::2] = torch.sin(place * rate), torch.cos(place * rate)
        self.register_buffer("pe", table[:, None])


class PlainMDM(nn.Module):
    """MDM's network with a `nn.TransformerEncoder`, in the layout (frames, batch, width)."""

    def __init__(
        self,
        width: int = 16,
        layers: int = 2,
        feedforward: int = 24,
        text: int = 32,
        features: int = FEATURES,
    ) -> None:
        super().__init__()
        self.input_process = Part(poseEmbedding=nn.Linear(features, width))
        self.sequence_pos_encoder = Table(width)
        layer = nn.TransformerEncoderLayer(width, 4, feedforward, dropout=0.1, activation="gelu")
        self.seqTransEncoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.embed_timestep = Part(sequence_pos_encoder=self.sequence_pos_encoder, time_embed=time)
        self.embed_text = nn.Linear(text, width)
        self.clip_model = Part(transformer=nn.Linear(3, 3))
        self.output_process = Part(poseFinal=nn.Linear(width, features))
        generator = torch.Generator().manual_seed(0)
        for name, parameter in self.named_parameters():
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator) + ("norm" in name)
        self.eval()

    def forward(self, x_BFD: Tensor, t_B: Tensor, text_BE: Tensor, there_BF: Tensor | None = None) -> Tensor:
        table = self.sequence_pos_encoder.pe
        prefix_1BW = self.embed_timestep.time_embed(table[t_B]).transpose(0, 1) + self.embed_text(text_BE)
        h_SBW = torch.cat([prefix_1BW, self.input_process.poseEmbedding(x_BFD.transpose(0, 1))])
        h_SBW = h_SBW + table[: len(h_SBW)]
        hidden_BS = None
        if there_BF is not None:
            hidden_BS = torch.cat([torch.zeros(len(x_BFD), 1, dtype=torch.bool), ~there_BF], 1)
        h_SBW = self.seqTransEncoder(h_SBW, src_key_padding_mask=hidden_BS)
        return self.output_process.poseFinal(h_SBW[1:]).transpose(0, 1)


ARGS = {
    "arch": "trans_enc", "dataset": "humanml", "diffusion_steps": 50, "noise_schedule": "cosine", "sigma_small": True,
    "emb_trans_dec": False, "latent_dim": 16, "layers": 2, "cond_mask_prob": 0.1, "lambda_vel": 0.0, "unconstrained": False,
}  # fmt: skip


def write_mdm(folder: Path, model: PlainMDM | None = None, weights: dict | None = None, **args) -> Path:
    """`model000000005.pt` and `args.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "args.json").write_text(json.dumps({**ARGS, **args}))
    torch.save(
        (model or PlainMDM()).state_dict() if weights is None else weights, folder / "model000000005.pt"
    )
    return folder / "model000000005.pt"


# -- T2M evaluator -------------------------------------------------------------------------------------------

WORDS = ["unk", "sos", "eos", "a", "person", "walk", "left", "arm", "slowly", "and", "wave", "odd"]
SIZES = {
    "word_width": 10,
    "text_hidden": 12,
    "movement_hidden": 14,
    "movement_width": 9,
    "motion_hidden": 11,
    "embedding": 8,
}


def random_t2m(seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """Tensors of the three encoders."""
    word, text, hidden, width, motion, out = SIZES.values()

    def recurrent(inputs: int, size: int) -> dict[str, tuple[int, ...]]:
        shapes = {"hidden": (2, 1, size), "input_emb.weight": (size, inputs), "input_emb.bias": (size,)}
        for way in ("", "_reverse"):
            shapes |= {f"gru.weight_ih_l0{way}": (3 * size, size), f"gru.weight_hh_l0{way}": (3 * size, size)}
            shapes |= {f"gru.bias_ih_l0{way}": (3 * size,), f"gru.bias_hh_l0{way}": (3 * size,)}
        shapes |= {"output_net.0.weight": (size, 2 * size), "output_net.0.bias": (size,)}
        shapes |= {"output_net.1.weight": (size,), "output_net.1.bias": (size,)}
        return shapes | {"output_net.3.weight": (out, size), "output_net.3.bias": (out,)}

    parts = {
        "text_encoder": {"pos_emb.weight": (word, 15), "pos_emb.bias": (word,), **recurrent(word, text)},
        "movement_encoder": {
            "main.0.weight": (hidden, FEATURES - 4, 4), "main.0.bias": (hidden,), "main.3.weight": (width, hidden, 4),
            "main.3.bias": (width,), "out_net.weight": (width, width), "out_net.bias": (width,),
        },
        "motion_encoder": recurrent(width, motion),
    }  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    return {
        part: {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        for part, shapes in parts.items()
    }


def write_t2m(folder: Path, weights: dict | None = None) -> dict[str, Path]:
    """`finest.tar`, the three files of words, mean and deviation; as the arguments of the conversion."""
    folder.mkdir(parents=True, exist_ok=True)
    more = {"opt_text_encoder": {"state": {}, "param_groups": [{"lr": 1e-4}]}, "epoch": 7, "iter": 100}
    torch.save({**(random_t2m() if weights is None else weights), **more}, folder / "finest.tar")
    generator = np.random.default_rng(0)
    np.save(
        folder / "our_vab_data.npy",
        generator.normal(size=(len(WORDS), SIZES["word_width"])).astype(np.float32),
    )
    for name, value in {"words": WORDS[::-1], "idx": {word: n for n, word in enumerate(WORDS)}}.items():
        (folder / f"our_vab_{name}.pkl").write_bytes(pickle.dumps(value))
    np.save(folder / "mean.npy", generator.normal(size=FEATURES).astype(np.float32))
    np.save(folder / "std.npy", generator.uniform(0.5, 2, FEATURES).astype(np.float32))
    return {
        "checkpoint": folder / "finest.tar",
        "glove": folder,
        "mean": folder / "mean.npy",
        "std": folder / "std.npy",
    }


def plain_sequence(weights: dict[str, Tensor], x_SW: Tensor) -> Tensor:
    """(E,) of one sequence, nothing padded: each way by itself, step by step."""
    x_SW = x_SW @ weights["input_emb.weight"].T + weights["input_emb.bias"]
    last = []
    for way, rows, h in (
        ("", x_SW, weights["hidden"][0, 0]),
        ("_reverse", x_SW.flip(0), weights["hidden"][1, 0]),
    ):
        for x in rows:
            reset, update, new = (
                weights[f"gru.weight_ih_l0{way}"] @ x + weights[f"gru.bias_ih_l0{way}"]
            ).chunk(3)
            reset_h, update_h, new_h = (
                weights[f"gru.weight_hh_l0{way}"] @ h + weights[f"gru.bias_hh_l0{way}"]
            ).chunk(3)
            gate = torch.sigmoid(update + update_h)
            h = (1 - gate) * torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h) + gate * h
        last.append(h)
    h = weights["output_net.0.weight"] @ torch.cat(last) + weights["output_net.0.bias"]
    h = (h - h.mean()) / (h.var(correction=0) + 1e-5).sqrt() * weights["output_net.1.weight"] + weights[
        "output_net.1.bias"
    ]
    h = torch.where(h > 0, h, 0.2 * h)
    return weights["output_net.3.weight"] @ h + weights["output_net.3.bias"]


def plain_motion(weights: dict[str, dict[str, Tensor]], z_FD: Tensor) -> Tensor:
    """(E,) of one motion's z-scores, as the evaluation does: filled up with zeros to 196 frames before the convolutions."""
    part = weights["movement_encoder"]
    x = torch.zeros(FRAMES + 2, FEATURES - 4)
    x[1 : len(z_FD) + 1] = z_FD[:, :-4]
    for name in ("main.0", "main.3"):
        rows = [
            torch.einsum("oik,ki->o", part[f"{name}.weight"], x[n : n + 4]) for n in range(0, len(x) - 3, 2)
        ]
        x = torch.stack(rows) + part[f"{name}.bias"]
        x = torch.where(x > 0, x, 0.2 * x)
        x = torch.cat([torch.zeros(1, x.shape[1]), x, torch.zeros(1, x.shape[1])])
    movements = x[1:-1] @ part["out_net.weight"].T + part["out_net.bias"]
    return plain_sequence(weights["motion_encoder"], movements[: len(z_FD) // 4])


def plain_text(
    weights: dict[str, dict[str, Tensor]], vectors: Tensor, words: list[str], tags: list[int]
) -> Tensor:
    """(E,) of one caption's words, start and end among them."""
    part = weights["text_encoder"]
    tag_ST = torch.eye(15)[tags]
    x_SW = (
        vectors[[WORDS.index(word) for word in words]]
        + tag_ST @ part["pos_emb.weight"].T
        + part["pos_emb.bias"]
    )
    return plain_sequence(part, x_SW)
