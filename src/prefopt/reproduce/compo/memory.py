"""M5 of `prefopt reproduce compo`: what an iteration allocates beside the model, and whether more moves need more.

Allocations of torch are counted as its profiler reports them, so that a peak has no noise: the same step has the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.oracles.head import HeadProbe, Response
from prefopt.oracles.step import StepSettings, oracle_step
from prefopt.reproduce.compo.world import RADIUS, Size
from prefopt.reproduce.core import Part, Table, within

WIDTH, LAYERS, PROMPT, RESPONSE = 256, 2, 16, 12
BETA = 0.1
CHUNK_BYTES = 2 * 2**20


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most bytes of CPU tensors that `work` held at once, above what was there.

    Example:
        >>> peak_bytes(lambda: torch.empty(1000)) >= 4000
        True
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would write its stages among the progress bars
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        kept = work()
    del kept
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def build(vocabulary: int) -> tuple[Any, Tensor]:
    """(a small Llama with random weights, (2, T) token ids of chosen and rejected behind one prompt)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=WIDTH,
                intermediate_size=4 * WIDTH,
                num_hidden_layers=LAYERS,
                num_attention_heads=4,
                num_key_value_heads=4,
                tie_word_embeddings=False,
                bos_token_id=None,
                eos_token_id=1,
                pad_token_id=0,
            )
        ).eval()
        ids_2T = torch.randint(2, vocabulary, (2, PROMPT + RESPONSE))
    ids_2T[1, :PROMPT] = ids_2T[0, :PROMPT]
    return model, ids_2T


def hidden_states(model: Any, ids_2T: Tensor) -> Tensor:
    """(2, response tokens, D) what the head is applied to."""
    hidden: Tensor = model.model(ids_2T, use_cache=False).last_hidden_state[:, PROMPT - 1 : -1]
    return hidden


def compo_iteration(model: Any, ids_2T: Tensor, moves: int) -> None:
    """Hidden states, moves, direction, selection, step: one iteration whose gate is open."""
    with torch.no_grad():
        sides = [
            Response(h, t) for h, t in zip(hidden_states(model, ids_2T), ids_2T[:, PROMPT:], strict=True)
        ]
        probe = HeadProbe(model.lm_head.weight, [(sides[0], sides[1])], chunk_bytes=CHUNK_BYTES)
        report = oracle_step(probe, StepSettings(moves, radius=RADIUS, gate=0.0), seed=0, iteration=0)
    if report.skipped:
        raise RuntimeError(f"the iteration whose memory was to be measured was skipped: {report.skipped}")


def dpo_step(model: Any, ids_2T: Tensor) -> None:
    """One AdamW step of DPO on the same pair; the reference's scores are constants, so no reference is held."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    log_p_2TV = model.lm_head(hidden_states(model, ids_2T)).log_softmax(-1)
    logp_2 = log_p_2TV.gather(-1, ids_2T[:, PROMPT:, None]).sum((1, 2))
    loss = -nn.functional.logsigmoid(BETA * (logp_2[0] - logp_2[1]))
    loss.backward()
    optimizer.step()


def experiment(size: Size) -> Part:
    """M5. Nothing here is random that could move an allocation, so one run is enough."""
    few, many = size.memory_moves
    small, wide = size.memory_vocabulary
    model, ids_2T = build(small)
    compo_iteration(model, ids_2T, few)  # what is made once and kept is not an iteration's
    by_moves = {m: peak_bytes(partial(compo_iteration, model, ids_2T, m)) for m in (few, many)}
    model, ids_2T = build(wide)
    head, whole = (4 * sum(p.numel() for p in part.parameters()) for part in (model.lm_head, model))
    peaks = {"ComPO": peak_bytes(partial(compo_iteration, model, ids_2T, few))}
    gradients = sum(p.grad is not None for p in model.parameters())
    peaks["DPO, AdamW"] = peak_bytes(partial(dpo_step, model, ids_2T))
    logits = 2 * (2 * RESPONSE) * wide * 4  # raw logits and probabilities
    bound = 2 * head + CHUNK_BYTES + logits
    result = Part()
    result.claims += [
        within(
            "M5: an iteration needs at most two heads, a chunk of moves and the pair's logits beside the model",
            [max(0, peaks["ComPO"] - bound) / head],
            0.0,
            source="Sec. 4.2",
            how=f"heads above the bound of {bound / head:.2f}; measured {peaks['ComPO'] / head:.2f}",
            unit="heads",
        ),
        within(
            f"M5: {many} moves need what {few} need",
            [(by_moves[many] - by_moves[few]) / 2**20],
            0.01,
            source="Table 4: peak memory does not change with m",
            how="difference of the peaks; answers are kept, a few bytes a move",
            unit="MiB",
        ),
        within(
            "M5: no parameter has a gradient afterwards",
            [gradients],
            0.0,
            source="Sec. 3",
            how="number of parameters with one",
        ),
        within(
            "M5: it needs at most half of what DPO with AdamW needs",
            [max(0.0, peaks["ComPO"] / peaks["DPO, AdamW"] - 0.5)],
            0.0,
            source="Sec. 4.2: 23 GB beside 77 GB",
            how=f"beside the model, ComPO / DPO - 0.5; the share is {peaks['ComPO'] / peaks['DPO, AdamW']:.2f}",
        ),
    ]
    result.tables += [
        Table(
            f"M5: most memory of an iteration beside the model, head of {wide} x {WIDTH}",
            ["step", "MiB", "heads", "models"],
            [[name, peak / 2**20, peak / head, peak / whole] for name, peak in peaks.items()],
        ),
        Table(
            f"M5: most memory of an iteration beside the model, head of {small} x {WIDTH}",
            ["moves", "MiB"],
            [[str(m), peak / 2**20] for m, peak in by_moves.items()],
        ),
    ]
    result.settings["M5"] = {
        "vocabularies": [small, wide],
        "hidden_width": WIDTH,
        "layers": LAYERS,
        "prompt_tokens": PROMPT,
        "response_tokens": RESPONSE,
        "moves": [few, many],
        "chunk_bytes": CHUNK_BYTES,
        "head_bytes": head,
        "model_bytes": whole,
        "counted": "allocations of torch on the CPU",
    }
    return result
