"""Conversations through a tokenizer's chat template, and what a template does to them that nobody would expect.

Nothing here knows a template by name: a conversation is rendered as training and as generation see it, and the two
texts are compared with each other and with the messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prefopt.comparisons import UnusableItem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, Any]]

OTHER_PROMPT = "other_prompt"
PROMPT_TEXT_LOST = "prompt_text_lost"
COMPLETION_TEXT_LOST = "completion_text_lost"
FOREIGN_TURNS = "foreign_turns"
CALLS_LOST = "calls_lost"
TOOLS_LOST = "tools_lost"

ODDITIES = {
    OTHER_PROMPT: "the chat template renders the completion so that it does not continue the prompt which generation "
    "shows (it opens a thinking block, say, that the completion lacks): training conditions on another prompt. Give "
    "chat_template_kwargs in the rows, or save the tokenizer with a template whose generation prompt fits",
    PROMPT_TEXT_LOST: "the chat template leaves out text of the prompt's messages (earlier thinking, a system message)",
    COMPLETION_TEXT_LOST: "the chat template leaves out text of the completion (its thinking, say), which is then not "
    "trained on",
    CALLS_LOST: "the chat template leaves out calls of tools, so that the model neither reads nor learns them: take a "
    "template that renders `tool_calls`",
    TOOLS_LOST: "the chat template leaves out the schemas in `tools`: take a template that renders them",
    FOREIGN_TURNS: "the completion holds turns of the user or the system, which are scored as if the model had written "
    "them: end completions before such a turn, or make a row of each turn",
}
"""What `oddities` finds, as clauses behind a number of completions."""

READ_ROLES = frozenset({"system", "developer", "user", "assistant"})
"""Roles whose text a template copies; results of tools are often rewritten."""


def render(
    tokenizer: PreTrainedTokenizerBase,
    condition: Mapping[str, Any],
    messages: Messages,
    *,
    tokenize: bool,
    generation_prompt: bool = False,
    ended: bool = True,
) -> Any:
    """Messages through the chat template.

    Args:
        tokenizer: has a chat template.
        condition: its `tools` and `chat_template_kwargs` go to the template.
        messages: the whole conversation.
        tokenize: token ids instead of text.
        generation_prompt: begin the model's next turn.
        ended: whether the last turn is whole; False: what the template writes behind its text is left out.
    """
    options = {"tools": condition.get("tools"), **(condition.get("chat_template_kwargs") or {})}
    options |= {"add_generation_prompt": generation_prompt, "tokenize": tokenize}
    if not ended:
        options["continue_final_message"] = True
    try:
        rendered = tokenizer.apply_chat_template(list(messages), return_dict=tokenize, **options)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        # values that this template, or the check of tools before it, cannot take; its own refusals are TemplateErrors
        told = (
            "it is nested too deeply"
            if isinstance(error, RecursionError)
            else str(error) or type(error).__name__
        )
        raise UnusableItem(
            f"the conversation or its tools cannot be rendered: {told.splitlines()[0]}", "chat_template"
        ) from None
    return rendered["input_ids"] if tokenize else rendered


def oddities(
    tokenizer: PreTrainedTokenizerBase, condition: Mapping[str, Any], completion: Messages
) -> frozenset[str]:
    """What is odd about a conversation as the template renders it; names of `ODDITIES`.

    Args:
        tokenizer: has a chat template.
        condition: holds the prompt's messages.
        completion: the messages that are scored.
    """
    prompt: Messages = condition["prompt"]
    asked = render(tokenizer, condition, prompt, tokenize=False, generation_prompt=True)
    whole = render(tokenizer, condition, [*prompt, *completion], tokenize=False)
    found = set()
    if not whole.startswith(asked):
        found.add(OTHER_PROMPT)
    squeezed = without_space(whole)
    if any(lost(message, squeezed) for message in prompt):
        found.add(PROMPT_TEXT_LOST)
    if any(lost(message, squeezed) for message in completion):
        found.add(COMPLETION_TEXT_LOST)
    if any(name not in squeezed for message in (*prompt, *completion) for name in called(message)):
        found.add(CALLS_LOST)
    if any(name not in squeezed for tool in condition.get("tools") or () for name in [tool_name(tool)]):
        found.add(TOOLS_LOST)
    if any(message["role"] in ("user", "system", "developer") for message in completion):
        found.add(FOREIGN_TURNS)
    return frozenset(found)


def lost(message: Mapping[str, Any], squeezed: str) -> bool:
    """Whether text of a message is not in a rendering, whose spaces (templates trim them) were taken out."""
    if message["role"] not in READ_ROLES:
        return False
    content = message.get("content") or ""
    parts = [content] if isinstance(content, str) else [part.get("text") or "" for part in content]
    parts += [text for key in ("reasoning_content", "thinking") if isinstance(text := message.get(key), str)]
    return any(without_space(part) not in squeezed for part in parts)


def called(message: Mapping[str, Any]) -> list[str]:
    """Names of the functions that a message calls."""
    return [tool_name(call) for call in message.get("tool_calls") or ()]


def tool_name(tool: Mapping[str, Any]) -> str:
    """The function's name in a schema or a call; empty where there is none, which every text holds."""
    function = tool.get("function")
    name = (function if isinstance(function, Mapping) else tool).get("name")
    return without_space(name) if isinstance(name, str) else ""


def without_space(text: str) -> str:
    """A text without its white space."""
    return "".join(text.split())
