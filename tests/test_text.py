"""Chat messages to tokens and replies to actions, with a byte-level tokenizer that is made here."""

import time
from time import perf_counter

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from marl_llm.errors import ModelError
from marl_llm.text import Chat, answer_instruction, canonical_reply, is_plain, parted, read_action, without_thoughts

CHATML = """
{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"""

# Drops the thoughts of earlier turns, and can ask for a reply without one, as Qwen3's template does.
STRIPS_THOUGHTS = CHATML.replace(
    "m.content", "(m.content.split('</think>')[-1].lstrip() if m.role == 'assistant' else m.content)"
).replace(
    "assistant\n{%",
    "assistant\n{{ '' if enable_thinking is not defined or enable_thinking else '<think>\n\n</think>\n\n' }}{%",
)

# No system role, strict alternation, its own end-of-turn token, in the manner of Gemma.
NO_SYSTEM = """
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}<|turn|>{{ 'model' if m.role == 'assistant' else 'user' }}\n{{ m.content | trim }}<|end|>\n
{%- endfor %}{% if add_generation_prompt %}<|turn|>model\n{% endif %}"""

# Puts the system prompt in front of the last message, wherever that is, in the manner of Mistral.
SYSTEM_LAST = """
{%- for m in messages %}{% if m.role == 'user' %}[INST]
{%- if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}{{ m.content }}[/INST]
{%- elif m.role == 'assistant' %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"""


def make_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    bytes_only = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=bytes_only, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|turn|>", "<|end|>", "<think>", "</think>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=template)


def ids(text: str) -> tuple[int, ...]:
    return tuple(make_tokenizer(None).encode(text, add_special_tokens=False))


def test_a_conversation_starts_as_the_template_renders_it() -> None:
    chat = Chat(make_tokenizer(CHATML))
    text = "<|im_start|>system\nRules.<|im_end|>\n<|im_start|>user\nYour card: K<|im_end|>\n<|im_start|>assistant\n"
    assert chat.start("Rules.", "Your card: K") == ids(text)
    assert chat.eos_token_id == ids("<|im_end|>")[0]


def test_a_whole_conversation_of_somebody_else_is_rendered_by_the_template() -> None:
    chat = Chat(make_tokenizer(CHATML))
    said = [("system", "Rules."), ("user", "one<|im_end|>"), ("assistant", "bet"), ("user", "two")]
    messages = [{"role": role, "content": content} for role, content in said]
    assert chat.prompt(messages) == ids(
        "<|im_start|>system\nRules.<|im_end|>\n<|im_start|>user\none< |im_end|><|im_end|>\n"
        "<|im_start|>assistant\nbet<|im_end|>\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat.prompt(messages[:2]) == chat.start("Rules.", "one<|im_end|>")
    assert chat.prompt(messages[1:2]) == ids("<|im_start|>user\none< |im_end|><|im_end|>\n<|im_start|>assistant\n")


def test_a_system_message_joins_the_users_where_the_template_has_none_and_refusals_are_told() -> None:
    chat = Chat(make_tokenizer(NO_SYSTEM))
    system, user = {"role": "system", "content": "Rules."}, {"role": "user", "content": "one"}
    assert (
        chat.prompt([system, user])
        == chat.start("Rules.", "one")
        == ids("<|turn|>user\nRules.\n\none<|end|><|turn|>model\n")
    )
    with pytest.raises(ModelError, match="template refuses the conversation: System role not supported"):
        chat.prompt([system])


def test_a_token_that_is_no_text_by_itself_is_called_by_its_name_in_the_vocabulary() -> None:
    chat = Chat(make_tokenizer(CHATML))
    assert [chat.name_of(token) for token in chat.encode("a<|im_end|>é")] == ["a", "<|im_end|>", "Ã", "©"]


def test_a_conversation_grows_by_appending_and_ends_as_the_template_renders_it() -> None:
    tokenizer = make_tokenizer(CHATML)
    chat = Chat(tokenizer)
    read = (*chat.start("Rules.", "one"), *ids("<answer>bet</answer><|im_end|>"))
    longer = chat.extend(read, "two")
    assert longer[: len(read)] == read
    messages = [("system", "Rules."), ("user", "one"), ("assistant", "<answer>bet</answer>"), ("user", "two")]
    rendered = [{"role": role, "content": content} for role, content in messages]
    whole = tokenizer.apply_chat_template(rendered, add_generation_prompt=True, return_dict=False)
    assert list(longer) == whole


def test_a_reply_that_was_cut_off_is_closed_by_a_prompt_token() -> None:
    chat = Chat(make_tokenizer(CHATML))
    start = chat.start("Rules.", "one")
    cut, ended = (*start, *ids("<answer>b")), (*start, *ids("<answer>b<|im_end|>"))
    assert chat.extend(cut, "two") == chat.extend(ended, "two")
    assert chat.extend(cut, "two")[: len(cut)] == cut


def test_sampled_tokens_stay_even_where_encoding_their_text_gives_others() -> None:
    tokenizer = make_tokenizer(CHATML)
    tokenizer.add_tokens(["bet"])
    chat = Chat(tokenizer)
    sampled = (*ids("bet"), chat.eos_token_id)  # three bytes, where the tokenizer would say one token
    assert tokenizer.encode("bet", add_special_tokens=False) != list(sampled[:-1])
    read = (*chat.start("", "one"), *sampled)
    assert chat.extend(read, "two")[: len(read)] == read


def test_thoughts_of_earlier_turns_stay_although_the_template_would_strip_them() -> None:
    chat = Chat(make_tokenizer(STRIPS_THOUGHTS), thinking=True)
    read = (*chat.start("Rules.", "one"), *ids("<think>hm</think>\n\n<answer>bet</answer><|im_end|>"))
    longer = chat.extend(read, "two")
    assert longer == (*read, *ids("\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n"))


def test_without_thinking_a_template_may_open_each_reply_with_an_empty_thought() -> None:
    chat = Chat(make_tokenizer(STRIPS_THOUGHTS), thinking=False)
    empty = ids("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    start = chat.start("Rules.", "one")
    assert start[-len(empty) :] == empty
    assert chat.extend((*start, chat.eos_token_id), "two")[-len(empty) :] == empty
    assert chat.opened == ""


def test_a_template_that_opens_the_thought_itself_says_so() -> None:
    chat = Chat(make_tokenizer(CHATML.replace("assistant\n", "assistant\n<think>\n")))
    assert chat.opened == "<think>"
    assert read_action(chat.opened + "hm</think><answer>bet</answer>", ["bet"], thinking=True) == "bet"


def test_without_a_system_role_the_system_prompt_opens_the_first_message() -> None:
    chat = Chat(make_tokenizer(NO_SYSTEM))
    start = chat.start("Rules.", "one")
    assert start == ids("<|turn|>user\nRules.\n\none<|end|><|turn|>model\n".replace("<|end|>\n<", "<|end|><"))
    assert chat.eos_token_id == ids("<|end|>")[0]  # the template's, not the tokenizer's
    assert chat.extend((*start, chat.eos_token_id), "two") == (
        *start,
        *ids("<|end|><|turn|>user\ntwo<|end|><|turn|>model\n"),
    )


def test_a_system_prompt_that_would_move_along_stays_in_the_first_message() -> None:
    chat = Chat(make_tokenizer(SYSTEM_LAST))
    start = chat.start("Rules.", "one")
    assert start == ids("[INST]Rules.\n\none[/INST]")
    assert chat.extend((*start, *ids("bet<|im_end|>")), "two") == (*start, *ids("bet<|im_end|>[INST]two[/INST]"))


def test_a_silently_dropped_system_prompt_is_noticed() -> None:
    template = CHATML.replace("messages %}", "messages if m.role != 'system' %}")
    start = Chat(make_tokenizer(template)).start("Rules.", "one")
    assert start == ids("<|im_start|>user\nRules.\n\none<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "has no chat template"),
        (
            CHATML.replace("{{ m.content }}", "{{ m.content[loop.revindex0:] }}"),
            "it renders earlier messages differently",
        ),
        (
            CHATML.replace("{{ m.content }}<|im_end|>", "{{ m.content }};"),
            "it does not end a reply with a special token",
        ),
        (CHATML.replace("{{ m.role }}", "{{ m.role }}{{ loop.index }}"), "is not always the same"),
        (CHATML.replace("messages %}", "messages[:2] %}"), "it leaves out a message"),
        (
            CHATML.replace("{{ m.content }}", "{{ messages[0].content }}{{ m.content }}"),
            "it repeats earlier messages",
        ),
        ("{{ raise_exception('no') }}", "it refuses a conversation of several rounds: no"),
        (
            CHATML.replace("%}<|im_start|>assistant\n{%", "%}<|im_start|>assistant\n{{ messages | length }}{%"),
            "is not always the same",
        ),
    ],
)
def test_a_template_that_cannot_be_continued_by_appending_is_refused(template: str | None, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        Chat(make_tokenizer(template))


def test_control_tokens_in_a_message_are_text() -> None:
    chat = Chat(make_tokenizer(CHATML))
    start = chat.start("Rules.", "he said <|im_end|>")
    assert start.count(chat.eos_token_id) == 2  # the ends of the system's and the user's message
    assert chat.extend((*start, chat.eos_token_id), "<|im_end|>").count(chat.eos_token_id) == 4


def test_a_reply_is_encoded_as_a_model_writes_it() -> None:
    chat = Chat(make_tokenizer(CHATML))
    reply = chat.encode_reply("<answer>bet</answer>")
    assert reply == ids("<answer>bet</answer><|im_end|>")
    assert chat.encode_reply("<|im_end|>").count(chat.eos_token_id) == 1


def test_decoding_drops_the_end_token_and_keeps_the_tags() -> None:
    chat = Chat(make_tokenizer(CHATML))
    reply = "<think>é</think> <answer> bet , fold </answer>"
    assert chat.decode(ids(reply + "<|im_end|>")) == reply
    assert chat.decode(ids(reply)) == reply
    assert chat.decode(()) == ""


@pytest.mark.parametrize("action", ["bet", "a1", "x(0,2)", "Raise 5"])
def test_the_canonical_reply_is_read_as_its_action(action: str) -> None:
    for thinking in (False, True):
        assert read_action(canonical_reply(action), ["pass", action], thinking=thinking) == action


@pytest.mark.parametrize(
    "reply",
    [
        "<answer>bet</answer>",
        " <answer> bet\n</answer>\n",
        "<ANSWER>Bet</Answer>",
        "< answer >BET</ answer >",
        "<answer>bet< / answer>",
    ],
)
def test_case_and_blank_space_do_not_matter(reply: str) -> None:
    assert read_action(reply, ["bet", "pass"], thinking=False) == "bet"


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "bet",
        "<answer>bet",
        "bet</answer>",
        "<answer></answer>",
        "<answer>fold</answer>",
        "<answer>bet pass</answer>",
        "<answer>bet, not pass</answer>",
        "<answer>bet</answer> or pass",
        "I say <answer>bet</answer>",
        "<answer>bet</answer><answer>bet</answer>",
        "<answer><answer>bet</answer></answer>",
        "<answer>bet<answer>pass</answer>",
        "</answer>bet<answer>",
        "<think></think><answer>bet</answer>",
        "<answer><think>bet</think></answer>",
        "<answer>bet</think></answer>",
        "<answer >bet</answers>",
    ],
)
def test_a_reply_with_no_reading_or_two_has_no_action(reply: str) -> None:
    assert read_action(reply, ["bet", "pass"], thinking=False) is None


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        ("<think>high card</think><answer>bet</answer>", "bet"),
        ("\n<Think>a < b</ think>\n\nSo: <answer>Bet</answer>\n", "bet"),
        ("I hold the king. <answer>bet</answer>", "bet"),
        ("<think><answer>pass</answer>? No. <think></think><answer>bet</answer>", "bet"),
        ("<think>bet</think><answer>bet</answer> done", None),
        ("<think><answer>bet</answer>", None),
        ("<think>bet</think>", None),
        ("no <think>x</think> <answer>bet</answer>", None),
        ("<think>x</think><think>y</think><answer>bet</answer>", None),
        ("x</think><answer>bet</answer>", None),
        ("<think>x</think> the form is <answer></answer> <answer>bet</answer>", None),
        ("<answer><think>x</think>bet</answer>", None),
    ],
)
def test_thoughts_may_hold_tags_and_nothing_else_may(reply: str, action: str | None) -> None:
    assert read_action(reply, ["bet", "pass"], thinking=True) == action


@pytest.mark.parametrize("piece", ["< ", " ", "<think>", "<answer>", "</think>", "<think>< "])
def test_a_reply_of_whatever_length_is_read_at_once(piece: str) -> None:
    """An endpoint may send anything; 30,000 blanks after a bracket once took 20 s."""
    reply = piece[:-1] + piece[-1] * 30_000 + piece * 10_000
    begun = perf_counter()
    assert read_action(reply, ("bet", "check"), thinking=True) is None
    assert perf_counter() - begun < 2


def test_the_game_spelling_is_returned_and_exact_spelling_wins() -> None:
    assert read_action("<answer>raise  TO 5</answer>", ["Raise to 5"], thinking=False) == "Raise to 5"
    assert read_action("<answer>B4</answer>", ["b4", "B4"], thinking=False) == "B4"
    assert read_action("<answer>NA1</answer>", ["na1", "Na1"], thinking=False) is None


def test_where_any_text_is_an_action_it_is_stripped() -> None:
    assert read_action("<answer>\n two words </answer>", None, thinking=False) == "two words"
    assert read_action("<answer> \n</answer>", None, thinking=False) is None


def test_the_instruction_shows_the_form_that_is_read() -> None:
    assert read_action(answer_instruction(False).split("inside ")[1].split(" and")[0], None, thinking=False) == "..."
    assert "<think>" in answer_instruction(True)
    assert "<think>" not in answer_instruction(False)


@pytest.mark.parametrize(
    ("reply", "heard"),
    [
        ("The answer is 7.", "The answer is 7."),
        ("<think>it is 8</think>\n\nIt is\n7.\n", "It is\n7."),
        ("it is 8, no\n</think> 7", "7"),
        ("< THINK >8</ think >7", "7"),
        ("<think>a<think>b</think>c</think>7", "7"),
        ("<think>8</think> 7 <think>or 9</think> it is", "7  it is"),
        ("8</think>7<think>or 9</think>", "7"),
        ("7 <think>or 9", "7"),
        ("<think>8", ""),
        ("<think></think>  ", ""),
        ("8</think>", ""),
        ("It is <answer>7</answer>.", "It is <answer>7</answer>."),
        ("I think 3 < 7", "I think 3 < 7"),
    ],
)
def test_a_plain_reply_is_heard_without_its_thoughts(reply: str, heard: str) -> None:
    assert without_thoughts(reply) == heard
    for thinking in (False, True):
        assert read_action(reply, None, thinking=thinking, plain=True) == (heard or None)


def test_plain_is_asked_for_and_only_where_nothing_is_listed() -> None:
    assert is_plain("plain", None)
    assert not is_plain("plain", ("bet", "pass"))
    assert not is_plain("plain", ())
    assert not is_plain("tagged", None)
    assert answer_instruction(True, plain=True) == answer_instruction(False, plain=True) == ""
    assert read_action(canonical_reply("so it is", plain=True), None, thinking=False, plain=True) == "so it is"


def test_thoughts_without_end_are_read_in_no_time() -> None:
    began = time.process_time()
    for tag in ("<think>", "</think>", "< think >x</think>"):
        assert without_thoughts(tag * 20_000) == ""
    assert time.process_time() - began < 5.0, "a second or two at most; what is quadratic takes minutes"


@pytest.mark.parametrize(
    ("reply", "thought", "rest"),
    [
        ("<think>a</think> <answer>b</answer>", "a", "<answer>b</answer>"),
        (" < think >\na\n</ think >b", "a", "b"),
        ("<answer>b</answer>", None, "<answer>b</answer>"),
        ("<think>never ends", "never ends", ""),
        ("begun in the prompt</think>b", "begun in the prompt", "b"),
        ("say <think> aloud", None, "say <think> aloud"),
        ("b <think>a</think>", None, "b <think>a</think>"),
        ("<think></think>", "", ""),
    ],
)
def test_a_thought_is_parted_from_what_is_said(reply: str, thought: str | None, rest: str) -> None:
    assert parted(reply) == (thought, rest)
