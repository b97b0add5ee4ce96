"""Chat templates are rendered as Hugging Face renders them; choices follow the prompt."""

import datetime
import gzip
import json

import pytest
import tokenizers

from fishjax.models.hub_tokenizer import HubTokenizer
from fishjax.tasks import (
    OpenQuestion,
    TaskError,
    apply_chat_template,
    chat_question,
    choose_shots,
    encode_questions,
    few_shot,
    with_shots,
)

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INSTRUCT = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {{- raise_exception('System role not supported') }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {{- '[INST] ' + message.content | trim + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message.content + eos_token }}
    {%- endif %}
{%- endfor %}
"""
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
HELLO = [{"role": "user", "content": "Hello"}]


def render(template, messages=HELLO, **settings):
    return apply_chat_template(template, messages, special=SPECIAL, **settings)


def test_conversations():
    talk = [*HELLO, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": " Bye "}]
    assert render(INSTRUCT, talk) == "<s>[INST] Hello [/INST] Hi</s>[INST] Bye [/INST]"
    system = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    assert render(CHATML) == system + "<|im_start|>assistant\n"
    assert render(CHATML, add_generation_prompt=False) == system


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("  {% if true %}\nyes\n  {% endif %}\n", "yes\n"),  # trim_blocks and lstrip_blocks
        ("{% for m in [1, 2, 3] %}{% if m == 2 %}{% break %}{% endif %}{{ m }}{% endfor %}", "1"),
        ("{% generation %}\na{% set x = 1 %}{% endgeneration %}{{ x }}", "a"),
        ("{{ {'b': '<é>', 'a': none} | tojson }}", '{"b": "<é>", "a": null}'),
        ("{{ [1] | tojson(indent=1) }}", "[\n 1\n]"),
        ("{{ strftime_now('%d %b %Y') }}", "09 Mar 2024"),
        ("{{ tools is none }}{{ documents is none }}{{ unknown }}", "TrueTrue"),
        (
            "{% macro m() %}{{ bos_token }}{{ strftime_now('%Y') }}{% endmacro %}{{ m() }}",
            "<s>2024",
        ),
        ("<&>", "<&>"),
        ("{{ messages[0].content }}\n", "Hello"),
    ],
)
def test_what_hugging_face_provides(template, expected):
    assert render(template, now=datetime.datetime(2024, 3, 9)) == expected


def test_the_clock_is_this_machines():
    before = datetime.datetime.now().year
    assert before <= int(render("{{ strftime_now('%Y') }}")) <= datetime.datetime.now().year


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('Roles must alternate') }}", "refuses the messages: Roles must alt"),
        ("a\n{% if %}", "chat template, line 2: "),
        ("{% unknown %}", "chat template, line 1: .*unknown tag 'unknown'"),
        ("{{ x.y.z }}", "chat template fails: UndefinedError: 'x' is undefined"),
        ("{{ messages.append(1) }}", "chat template fails: SecurityError"),
        ("{{ messages.__class__.__mro__ }}", "chat template fails: SecurityError"),
        ("{{ 1 / 0 }}", "chat template fails: ZeroDivisionError"),
        ("{{ range(10 ** 9) }}", "chat template fails: OverflowError"),
        ("{{ messages | nonsense }}", "No filter named 'nonsense'"),
    ],
)
def test_bad_templates(template, message):
    with pytest.raises(TaskError, match=message):
        render(template)
    assert HELLO == [{"role": "user", "content": "Hello"}]


@pytest.fixture
def chatting(characters):
    def make(template):
        tokenizer = characters()
        tokenizer.chat_template, tokenizer.special = template, SPECIAL
        return tokenizer

    return make


def test_choices_begin_a_line_where_the_prompt_ends_with_one(chatting, make_question):
    question = make_question("The sky is", " blue", "  red", id="q7")
    on_line = chat_question(question, chatting(CHATML))
    assert on_line.context.endswith("user\nThe sky is<|im_end|>\n<|im_start|>assistant\n")
    assert on_line.choices == ("blue", " red")
    assert on_line._replace(context="", choices=()) == question._replace(context="", choices=())
    after = chat_question(question, chatting(INSTRUCT))
    assert (after.context, after.choices) == ("<s>[INST] The sky is [/INST]", question.choices)


def test_system_message_and_open_questions(chatting):
    question = OpenQuestion("o", "Who?", ("me",), {"a": 1})
    asked = chat_question(question, chatting(CHATML), system="Obey.")
    assert asked == question._replace(
        context="<|im_start|>system\nObey.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    dated = "{{ strftime_now('%Y') }}"
    moment = datetime.datetime(1999, 1, 1)
    assert chat_question(question, chatting(dated), now=moment).context == "1999"


def test_errors_name_the_question(chatting, characters, make_question):
    question = make_question("ab", " c", id="q7")
    with pytest.raises(TaskError, match=r"question 'q7': .* refuses .*: System role not supported"):
        chat_question(question, chatting(INSTRUCT), system="Obey.")
    for tokenizer in (characters(), chatting(None)):
        with pytest.raises(TaskError, match="question 'q7': the tokenizer has no chat template"):
            chat_question(question, tokenizer)


def test_examples_and_question_are_one_message(chatting, make_question):
    first, second = make_question("a?", " b", id="x"), make_question("c?", " d", id="y")
    prompted = with_shots([second], choose_shots([first], 1, 0))
    (asked,) = [chat_question(question, chatting(INSTRUCT)) for question in prompted]
    assert asked.context == "<s>[INST] a? b\n\nc? [/INST]"


def test_solved_open_questions_are_in_the_message(chatting):
    """The template begins the sequence, so encoding must not; the answer is not given away."""
    pool = [OpenQuestion(f"o{n}", f"Q: {n}?\nA:", (f"answer {n}", "other"), {}) for n in "abc"]
    for question, plain in zip(few_shot(pool, pool, 2, 0), pool, strict=True):
        asked = chat_question(question, chatting(INSTRUCT))
        assert asked.context == f"<s>[INST] {question.context} [/INST]"
        assert asked.context.count("<s>") == 1
        assert asked.context.endswith(f"\n\n{plain.context} [/INST]")
        assert f"answer {plain.id[1]}" not in asked.context
        assert asked.aliases == plain.aliases
    with pytest.raises(TaskError, match=r"question 'oa': the chat template refuses .*: not today"):
        chat_question(pool[0], chatting("{{ raise_exception('not today') }}"))


@pytest.mark.shared
def test_special_tokens_of_a_real_tokenizer(shared_data, make_question):
    folder = shared_data / "tokenizers/smollm2"
    text = gzip.decompress((folder / "tokenizer.json.gz").read_bytes()).decode()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = CHATML
    tokenizer = HubTokenizer(tokenizers.Tokenizer.from_str(text), settings)
    question = chat_question(make_question("The sky is", " blue", " red"), tokenizer)
    (encoded,) = encode_questions([question], tokenizer, 512, adds_bos=False)
    for answer, choice in zip(encoded.answers, ("blue", "red"), strict=True):
        ids = answer.token_ids
        assert ids[0] == tokenizer.bos_id
        assert ids.count(tokenizer.bos_id) == 3  # system, user and assistant
        assert ids.count(tokenizer.eos_id) == 2
        assert tokenizer.decode(ids[-answer.num_targets :]) == f"\n{choice}"
