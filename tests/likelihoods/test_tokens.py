"""Scores against a direct log-softmax, one unpadded row at a time; tokens written once; one truncation rule."""

from __future__ import annotations

from array import array
from types import SimpleNamespace

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import ROWS, save_tiny_model
from prefopt.comparisons import Item, UnusableItem
from prefopt.likelihoods.plan import EncodedText, plan_rows
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


def test_entropy_and_hits_against_the_plain_logits(loaded):
    """With the model's own head and with ours."""
    model, tokenizer = loaded
    likelihood = TokenLikelihood(tokenizer)
    encoded = [likelihood.encode(item) for item in ITEMS]
    prompt = encoded[0].ids[: encoded[0].start]
    likeliest = model(torch.tensor([list(prompt)])).logits[0, -1].argmax()
    encoded.append(EncodedText(prompt + array("i", [int(likeliest), 5]), len(prompt)))  # a hit, for certain
    logits = [model(torch.tensor([list(e.ids)])).logits[0, e.start - 1 : -1].detach() for e in encoded]
    entropy_N = [torch.distributions.Categorical(logits=x).entropy().sum() for x in logits]
    targets = [torch.tensor(e.ids[e.start :]) for e in encoded]
    top1_N = [(x.argmax(-1) == t).sum().double() for x, t in zip(logits, targets, strict=True)]
    assert 0 < sum(top1_N) < sum(map(len, targets))
    for adapted in (False, True):
        if adapted:
            assert likelihood.adapt(model).own_head
        scores = likelihood.score(model, likelihood.plan(encoded), {"top1", "entropy", "length"})
        torch.testing.assert_close(scores.entropy_N, torch.stack(entropy_N), rtol=0, atol=1e-6)
        torch.testing.assert_close(scores.top1_N, torch.stack(top1_N), rtol=0, atol=0)
        assert scores.log_p2_N is None
        assert not scores.entropy_N.requires_grad


class BagOfWords(torch.nn.Module):
    """Predicts every token from the mean of its whole row: unlike a causal model, it sees padding."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, vocabulary)

    def forward(self, input_ids, attention_mask=None, use_cache=None):
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        sum_RTV = self.embedding(input_ids) * mask[..., None]
        mean_RTV = (sum_RTV.sum(1, keepdim=True) / mask.sum(1)[:, None, None]).expand_as(sum_RTV)
        return SimpleNamespace(logits=mean_RTV)


def test_padding_is_masked(tokenizer):
    likelihood = TokenLikelihood(tokenizer)
    encoded = [likelihood.encode(item) for item in ITEMS]
    model = BagOfWords(len(tokenizer))
    with torch.no_grad():
        together = likelihood.score(model, likelihood.plan(encoded))
        alone = [likelihood.score(model, likelihood.plan([e])).logp_N[0] for e in encoded]
    torch.testing.assert_close(together.logp_N, torch.stack(alone))


def test_sums_are_float32_with_bf16_weights(tiny_model, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).eval()
    likelihood = TokenLikelihood(tokenizer)
    plan = likelihood.plan([likelihood.encode(item) for item in ITEMS])
    with torch.no_grad():
        scores = likelihood.score(model, plan, extras={"log_p2"})
        logits = model(input_ids=plan.input_ids_RT, attention_mask=plan.attention_mask_RT).logits
    assert (logits.dtype, scores.logp_NL.dtype) == (torch.bfloat16, torch.float32)
    assert scores.log_p2_N.dtype == torch.float32
    exact = logits.double().log_softmax(-1)[plan.row_K, plan.position_K]
    exact_K = exact.gather(-1, plan.target_K[:, None])[:, 0]
    found_K = scores.logp_NL[plan.item_K, plan.offset_K].double()
    torch.testing.assert_close(found_K, exact_K, rtol=0, atol=1e-5)


def test_only_the_scores_have_a_gradient(tiny_model, tokenizer):
    likelihood = TokenLikelihood(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    scores = likelihood.score(model, likelihood.plan([likelihood.encode(ITEMS[0])]), extras={"log_p2"})
    assert scores.logp_NL.requires_grad
    assert not scores.log_p2_N.requires_grad


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


@pytest.mark.parametrize("chat", [False, True])
def test_a_completion_that_was_cut_gets_no_end(tokenizer, chat):
    said = " fig"
    condition, sample = {"prompt": "Sort: fig"}, said
    if chat:
        condition = {"prompt": [{"role": "user", "content": "Sort: fig"}]}
        sample = [{"role": "assistant", "content": "fig"}]
    whole, cut = (
        TokenLikelihood(tokenizer).encode(Item(condition, sample, ended=ended)) for ended in (True, False)
    )
    assert list(whole.ids) == [*cut.ids, tokenizer.eos_token_id]
    assert whole.start == cut.start
    assert tokenizer.decode(cut.ids[cut.start :]).strip() == "fig"


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


def test_room_for_prompt_and_completion(tokenizer):
    with pytest.raises(ValueError, match="at least 2"):
        TokenLikelihood(tokenizer, 1)
    TokenLikelihood(tokenizer, 2)


def test_a_word_across_the_seam_belongs_to_the_completion(tokenizer):
    """Tokenizers merge over the end of the prompt: scoring begins at the first token that the prompt lacks."""
    item = Item({"prompt": "Sort: fi"}, "g fig")
    prompt_ids = tokenizer("Sort: fi")["input_ids"]
    whole_ids = tokenizer("Sort: fig fig" + tokenizer.eos_token)["input_ids"]
    encoded = TokenLikelihood(tokenizer).encode(item)
    assert list(encoded.ids) == whole_ids
    assert encoded.start < len(prompt_ids)  # there is a merge
    assert whole_ids[: encoded.start] == prompt_ids[: encoded.start]
    assert whole_ids[encoded.start] != prompt_ids[encoded.start]


def test_a_single_token_has_nothing_to_predict_it(tokenizer):
    tokenizer.bos_token = tokenizer.eos_token = None
    likelihood = TokenLikelihood(tokenizer)
    assert len(tokenizer(" fig")["input_ids"]) == 1
    with pytest.raises(UnusableItem, match="single token"):
        likelihood.encode(Item({"prompt": ""}, " fig"))
    encoded = likelihood.encode(Item({"prompt": ""}, " fig red"))
    assert (len(encoded.ids), encoded.start) == (2, 1)


def test_text_and_messages_do_not_mix(tokenizer):
    with pytest.raises(UnusableItem, match="list of messages"):
        TokenLikelihood(tokenizer).encode(
            Item({"prompt": "Sort: fig"}, [{"role": "assistant", "content": "fig"}])
        )


def test_one_message_is_a_conversation(tokenizer):
    prompt, answer = [{"role": "user", "content": "Sort: fig"}], {"role": "assistant", "content": "fig"}
    likelihood = TokenLikelihood(tokenizer)
    alone, listed = (likelihood.encode(Item({"prompt": prompt}, sample)) for sample in (answer, [answer]))
    assert (alone.ids, alone.start) == (listed.ids, listed.start)


def test_tools_and_template_options_reach_the_template(tokenizer):
    tokenizer.chat_template = (
        "{% for tool in tools or [] %}{{ tool.name }} {% endfor %}{{ manner or 'plain' }}"
        "{% for m in messages %} {{ m.role }}: {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %} assistant:{% endif %}"
    )
    prompt = [{"role": "user", "content": "Sort: fig"}]
    condition = {"prompt": prompt, "tools": [{"name": "red"}], "chat_template_kwargs": {"manner": "blue"}}
    likelihood = TokenLikelihood(tokenizer)
    encoded = likelihood.encode(Item(condition, [{"role": "assistant", "content": "fig"}]))
    asked = tokenizer.decode(encoded.ids[: encoded.start])
    assert asked == "red blue user: Sort: fig assistant:"
    # what is generated from is what is scored
    assert tokenizer.decode(likelihood.prompt_ids(condition)) == asked
    plain = tokenizer.decode(likelihood.prompt_ids({"prompt": prompt}))
    assert plain == "plain user: Sort: fig assistant:"


def test_prompt_ids_of_text(tokenizer):
    likelihood = TokenLikelihood(tokenizer)
    encoded = likelihood.encode(Item({"prompt": "Sort: fig"}, " fig"))
    assert likelihood.prompt_ids({"prompt": "Sort: fig"}) == list(encoded.ids[: encoded.start])


def test_a_reference_with_its_own_condition(tokenizer):
    likelihood = TokenLikelihood(tokenizer)
    item = Item({"prompt": "Sort: pear fig"}, " fig pear", reference_condition={"prompt": "Sort: fig"})
    encoded = likelihood.encode(item)
    seen = likelihood.seen_by_reference(encoded)
    other = likelihood.encode(Item({"prompt": "Sort: fig"}, " fig pear"))
    assert (seen.ids, seen.start) == (other.ids, other.start)
    assert seen.ids != encoded.ids
    assert seen.ids[seen.start :] == encoded.ids[encoded.start :]  # the same tokens are scored
    assert likelihood.seen_by_reference(other) is other
    # one of the two would lose an end that the other keeps
    with pytest.raises(UnusableItem, match="different tokens"):
        TokenLikelihood(tokenizer, len(encoded.ids) - 1).encode(item)


def test_key_tells_tokens_and_scored_part(tokenizer):
    likelihood = TokenLikelihood(tokenizer)
    one = EncodedText(array("i", [5, 6, 7]), 1)
    assert likelihood.key(one) == likelihood.key(EncodedText(array("i", [5, 6, 7]), 1, truncated=True))
    others = [EncodedText(array("i", [5, 6, 7]), 2), EncodedText(array("i", [5, 6, 8]), 1)]
    assert len({likelihood.key(item) for item in (one, *others)}) == 3


def test_plan_counts():
    plan = plan_rows(
        [EncodedText(array("i", [5, 6, 7, 8, 9]), 3), EncodedText(array("i", [5, 6, 7]), 2)], pad_token_id=0
    )
    assert plan.input_ids_RT.tolist() == [[5, 6, 7, 8], [5, 6, 0, 0]]  # a last token predicts nothing
    assert plan.attention_mask_RT.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert plan.until_RT is None
    assert plan.position_K.tolist() == [2, 3, 1]
    assert plan.target_K.tolist() == [8, 9, 7]
    assert (plan.length_N.tolist(), plan.longest) == ([2, 1], 2)
    assert plan.describe() == "2 items in 2 rows of 4: 6 tokens, 25% padding, 3 scored"
    moved = plan.to(torch.device("meta"))
    assert {t.device.type for t in (moved.input_ids_RT, moved.target_K, moved.length_N)} == {"meta"}
    assert moved.longest == 2


@pytest.mark.parametrize("start", [0, 3])
def test_items_that_cannot_be_scored_are_refused(start):
    with pytest.raises(ValueError, match="item 0 has 3 tokens"):
        plan_rows([EncodedText(array("i", [5, 6, 7]), start)], pad_token_id=0)
