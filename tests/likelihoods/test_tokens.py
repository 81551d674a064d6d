"""Scores against a direct log-softmax, one unpadded row at a time; tokens written once; one truncation rule."""

from __future__ import annotations

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import ROWS, save_tiny_model
from prefopt.comparisons import Item, UnusableItem
from prefopt.likelihoods.tokens import TokenLikelihood

ITEMS = [Item({"prompt": row["prompt"]}, row[side]) for row in ROWS[:4] for side in ("chosen", "rejected")]


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt2"])
def loaded(request, tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp(request.param), request.param)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    return model, AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def test_against_log_softmax_one_row_at_a_time(loaded):
    model, tokenizer = loaded
    likelihood = TokenLikelihood(tokenizer)
    encoded = [likelihood.encode(item) for item in ITEMS]
    assert len({len(item.ids) for item in encoded}) > 2  # there is padding to get wrong
    with torch.no_grad():
        together = likelihood.score(model, likelihood.plan(encoded), extras={"log_p2"})
        for n, (item, e) in enumerate(zip(ITEMS, encoded, strict=True)):
            text = item.condition["prompt"] + item.sample + tokenizer.eos_token
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            first = len(tokenizer(item.condition["prompt"])["input_ids"])
            logp_TV = model(ids).logits[0, first - 1 : -1].log_softmax(-1)
            direct = logp_TV.gather(-1, ids[0, first:, None])[:, 0]
            assert list(e.ids) == ids[0].tolist()
            torch.testing.assert_close(together.logp_NL[n, : len(direct)], direct, rtol=0, atol=1e-9)
            assert not together.logp_NL[n, len(direct) :].any()
            assert together.length_N[n] == len(direct)
            p2 = logp_TV.exp().square().sum(-1).log().sum()
            torch.testing.assert_close(together.log_p2_N[n], p2, rtol=0, atol=1e-9)
            alone = likelihood.score(model, likelihood.plan([e]))
            torch.testing.assert_close(together.logp_N[n], alone.logp_N[0], rtol=0, atol=1e-9)


def test_sums_are_float32_under_bf16(tiny_model, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    likelihood = TokenLikelihood(tokenizer)
    plan = likelihood.plan([likelihood.encode(item) for item in ITEMS])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        scores = likelihood.score(model, plan)
        logits = model(input_ids=plan.input_ids_RT, attention_mask=plan.attention_mask_RT).logits
    assert logits.dtype == torch.bfloat16
    assert scores.logp_NL.dtype == torch.float32
    exact = logits.double().log_softmax(-1)[plan.row_K, plan.position_K]
    exact_K = exact.gather(-1, plan.target_K[:, None])[:, 0]
    torch.testing.assert_close(
        scores.logp_NL[plan.item_K, plan.offset_K].double(), exact_K, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("ended", ["", "</s>"])
def test_end_of_sequence_once(tokenizer, ended):
    encoded = TokenLikelihood(tokenizer).encode(Item({"prompt": "Sort: fig"}, " fig" + ended))
    assert list(encoded.ids).count(tokenizer.eos_token_id) == 1
    assert encoded.ids[-1] == tokenizer.eos_token_id


def test_beginning_of_sequence_once(tokenizer):
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bos)]
    )
    chat = [{"role": "user", "content": "Sort: fig"}]
    for item in (
        Item({"prompt": "Sort: fig"}, " fig"),
        Item({"prompt": chat}, [{"role": "assistant", "content": "fig"}]),
        Item({"prompt": ""}, "fig red"),
    ):
        ids = list(TokenLikelihood(tokenizer).encode(item).ids)
        assert ids.count(bos) == 1
        assert ids[0] == bos


def test_empty_prompt_gets_a_beginning(tokenizer):
    encoded = TokenLikelihood(tokenizer).encode(Item({"prompt": ""}, "fig red"))
    assert encoded.ids[0] == tokenizer.bos_token_id
    assert encoded.start == 1


def test_conversation_scores_the_assistant_turn(tokenizer):
    item = Item(
        {"prompt": [{"role": "user", "content": "Sort: fig"}]}, [{"role": "assistant", "content": "fig"}]
    )
    encoded = TokenLikelihood(tokenizer).encode(item)
    assert tokenizer.decode(encoded.ids[encoded.start :]).replace(" ", "") == "fig</s>"
    assert tokenizer.decode(encoded.ids[: encoded.start]).endswith("<|assistant|>")


def test_truncation_cuts_the_end_of_the_completion(tokenizer):
    item = Item({"prompt": "Sort: pear fig"}, " fig pear fig")
    whole = TokenLikelihood(tokenizer, None).encode(item)
    for limit in range(whole.start + 1, len(whole.ids)):
        cut = TokenLikelihood(tokenizer, limit).encode(item)
        assert cut.ids == whole.ids[:limit]
        assert cut.start == whole.start
        assert cut.truncated
    assert not TokenLikelihood(tokenizer, len(whole.ids)).encode(item).truncated
    with pytest.raises(UnusableItem, match="prompt alone"):
        TokenLikelihood(tokenizer, whole.start).encode(item)
    with pytest.raises(UnusableItem, match="completion is empty"):
        TokenLikelihood(tokenizer).encode(Item({"prompt": "Sort: pear"}, ""))


def test_no_chat_template_is_explained(tokenizer):
    tokenizer.chat_template = None
    item = Item({"prompt": [{"role": "user", "content": "a"}]}, [{"role": "assistant", "content": "b"}])
    with pytest.raises(ValueError, match="no chat template"):
        TokenLikelihood(tokenizer).encode(item)
