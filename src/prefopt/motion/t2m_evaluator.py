"""The judge that the field evaluates text-to-motion models with: the encoders of text-to-motion (Guo et al. 2022), embeddings of which
are compared by their Euclidean distance.

`converting.py` reads the released weights, whose names the parts keep. Features come in physical units: the evaluator has
statistics of its own, which are not those of the data set.

Legend: B motions (texts), F frames, M = F // 4 movements, D features, S words, W widths, E width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from prefopt.motion.retrieval import BATCH, check_motions
from prefopt.motion.stats import MotionStats
from prefopt.motion.tagged_words import TAGS, UNKNOWN, tagged_captions, words_and_tags

STRIDE = 4
"""Frames of a movement."""
CONTACTS = 4
"""Features at the end of a frame that the evaluator does not see."""


class T2MEvaluator(ModelMixin, ConfigMixin):
    """Embeds tagged captions and motions; rows of what comes out stand in the order of what went in.

    Args:
        vocabulary: words, one a row of the word vectors; "unk" stands for all others.
        codec, features, fps, name: of its statistics.
        max_frames: longest motion; all are filled up with zeros to it, as in the field's evaluation, where the last movement of a
            motion sees what follows.
        word_width, text_hidden, movement_hidden, movement_width, motion_hidden, embedding: W and E.

    Example:
        >>> judge = T2MEvaluator.from_pretrained("folder")  # doctest: +SKIP
        >>> judge.encode_texts(["a/DET person/NOUN walk/VERB"]).shape  # doctest: +SKIP
        torch.Size([1, 512])
    """

    @register_to_config
    def __init__(
        self,
        vocabulary: Sequence[str] = (UNKNOWN,),
        codec: str = "humanml3d",
        features: int = 263,
        fps: float = 20.0,
        name: str = "T2M evaluator",
        max_frames: int = 196,
        word_width: int = 300,
        text_hidden: int = 512,
        movement_hidden: int = 512,
        movement_width: int = 512,
        motion_hidden: int = 1024,
        embedding: int = 512,
    ) -> None:
        super().__init__()
        if UNKNOWN not in vocabulary:
            raise ValueError(
                f"a vocabulary of {len(vocabulary)} words without {UNKNOWN!r}, which stands for all others"
            )
        self.register_buffer("word_vectors", torch.zeros(len(vocabulary), word_width))
        self.stats = MotionStats(codec, features, fps, name)
        self.text_encoder = WordEncoder(word_width, text_hidden, embedding)
        self.movement_encoder = MovementEncoder(features - CONTACTS, movement_hidden, movement_width)
        self.motion_encoder = SequenceEncoder(movement_width, motion_hidden, embedding)
        self._place = {word: n for n, word in enumerate(vocabulary)}
        self.tagged: dict[str, str] = {}
        self.eval()

    word_vectors: Tensor

    @torch.no_grad()
    def encode_texts(self, prompts: Sequence[str]) -> Tensor:
        """(B, E) float32 embeddings, whose lengths mean something.

        Args:
            prompts: tagged captions ("a/DET person/NOUN walk/VERB"), or plain ones that `tagged` knows: a dictionary from a caption to
                its tagged form, which whoever reads a data set may fill.

        Raises:
            ValueError: a text without tags, or a single string in place of a list.
        """
        if isinstance(prompts, str):
            raise ValueError(f"a single string {prompts[:40]!r}: needed a list of texts")
        read = [words_and_tags(text, self._place) for text in tagged_captions(prompts, self.tagged)]
        if not read:
            return self.word_vectors.new_zeros(0, int(self.config.embedding))
        found = []
        for start in range(0, len(read), BATCH):
            words, tags = zip(*read[start : start + BATCH], strict=True)
            length_B = torch.tensor([len(row) for row in words])
            word_BS, tag_BS = (
                pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(self.device)
                for rows in (words, tags)
            )
            tag_BST = one_hot(tag_BS, len(TAGS)).to(self.word_vectors.dtype)
            found.append(self.text_encoder(self.word_vectors[word_BS], tag_BST, length_B))
        return torch.cat(found).float()

    @torch.no_grad()
    def encode_motions(self, features_BFD: Tensor, lengths_B: Tensor) -> Tensor:
        """(B, E) float32 embeddings, whose lengths mean something; one depends on no other.

        Args:
            features_BFD: physical units; what stands behind a motion's end is not looked at.
            lengths_B: frames of each; those behind the last whole four are left out, as the data set's lengths are multiples.

        Raises:
            ValueError: other shapes, motions of fewer than 4 frames or of too many, numbers that are not finite; says which.
        """
        most = int(self.config.max_frames)
        check_motions(features_BFD, lengths_B, int(self.config.features), most)
        short = (lengths_B < STRIDE).nonzero().flatten().tolist()
        if short:
            raise ValueError(
                f"motion {short[0]} has {int(lengths_B[short[0]])} frames; needed {STRIDE} or more, a movement"
            )
        if not len(lengths_B):
            return self.word_vectors.new_zeros(0, int(self.config.embedding))
        found, training = [], self.training
        self.eval()
        for some_BFD, some_B in zip(features_BFD.split(BATCH), lengths_B.split(BATCH), strict=True):
            count_B = some_B.cpu() // STRIDE
            z_BFD = self.stats.normalize(some_BFD[:, :most].to(self.device, self.word_vectors.dtype))
            there_BF = torch.arange(z_BFD.shape[1]) < count_B[:, None] * STRIDE
            z_BFD = z_BFD.masked_fill(~there_BF[..., None].to(self.device), 0.0)[..., :-CONTACTS]
            movement_BMW = self.movement_encoder(pad(z_BFD, (0, 0, 0, most - z_BFD.shape[1])))
            found.append(self.motion_encoder(movement_BMW, count_B))
        self.train(training)
        return torch.cat(found).float()


class MovementEncoder(nn.Module):
    """A vector for every four frames, by two convolutions of stride 2."""

    def __init__(self, features: int, hidden: int, width: int) -> None:
        super().__init__()
        # the places of the parameters are their names in the released weights, so that dropout has one too
        self.main = nn.Sequential(
            *(nn.Conv1d(features, hidden, 4, 2, 1), nn.Dropout(0.2), nn.LeakyReLU(0.2)),
            *(nn.Conv1d(hidden, width, 4, 2, 1), nn.Dropout(0.2), nn.LeakyReLU(0.2)),
        )
        self.out_net = nn.Linear(width, width)

    def forward(self, z_BFD: Tensor) -> Tensor:
        """(B, M, W)."""
        out_BMW: Tensor = self.out_net(self.main(z_BFD.mT).mT)
        return out_BMW


class SequenceEncoder(nn.Module):
    """One vector of a sequence: the last states of a recurrent network that reads it both ways, from a state that was learnt."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.input_emb = nn.Linear(inputs, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        self.output_net = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.LayerNorm(hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, outputs)
        )
        self.hidden = nn.Parameter(torch.zeros(2, 1, hidden))

    def forward(self, x_BSW: Tensor, length_B: Tensor) -> Tensor:
        """(B, E); what stands behind the end of a sequence is not read. Lengths on the CPU, in any order."""
        packed = pack_padded_sequence(self.input_emb(x_BSW), length_B, batch_first=True, enforce_sorted=False)
        _, last_2BW = self.gru(packed, self.hidden.repeat(1, len(x_BSW), 1))
        out_BE: Tensor = self.output_net(torch.cat([last_2BW[0], last_2BW[1]], -1))
        return out_BE


class WordEncoder(SequenceEncoder):
    """The same of word vectors, to which a vector of the part of speech is added."""

    def __init__(self, word_width: int, hidden: int, outputs: int) -> None:
        super().__init__(word_width, hidden, outputs)
        self.pos_emb = nn.Linear(len(TAGS), word_width)

    def forward(self, word_BSW: Tensor, tag_BST: Tensor, length_B: Tensor) -> Tensor:  # type: ignore[override]
        """(B, E)."""
        return super().forward(word_BSW + self.pos_emb(tag_BST), length_B)
