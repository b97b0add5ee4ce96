"""The user's own JSONL: what it means, and one clear message for everything wrong with it."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from fishjax.tasks import TASKS, Task, TaskError, load_task

GOOD = {"question": "The sky is", "choices": ["blue", "red"], "answer": 0}


def load(path, *records, **kwargs):
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    return load_task("multiple_choice", path, **kwargs)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "own.jsonl"


def test_fields(path):
    extra = {"id": "a", "context": "Look up.", "exposure": 4, "answer": 1}
    task = load(path, GOOD, "", GOOD | extra, GOOD | {"id": 7})
    first, second, third = task.questions
    assert isinstance(task, Task)
    assert (first.id, second.id, third.id) == ("line-1", "a", "7")
    assert first.context == "The sky is"
    assert second.context == "Look up.\nThe sky is"
    assert first.choices == (" blue", " red")
    assert first.texts == ("blue", "red")
    assert (first.gold, second.gold) == (0, 1)
    assert (first.metadata, second.metadata) == ({}, {"exposure": 4})


def test_unicode_byte_order_mark_and_line_ends(path):
    record = GOOD | {"question": "日本\u2028 é?", "choices": ["😀", "\u00a0x"]}
    text = json.dumps(record, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + f"{text}\r\n\r\n{json.dumps(GOOD)}\r\n".encode())
    questions = load_task("multiple_choice", path).questions
    assert questions[0].context == "日本\u2028 é?"
    assert questions[0].choices == (" 😀", " \u00a0x")
    assert [q.id for q in questions] == ["line-1", "line-3"]


def test_one_choice_is_accepted(path):
    (question,) = load(path, GOOD | {"choices": ["blue"]}).questions
    assert question.gold == 0


def test_limit_takes_the_first(path):
    records = [GOOD | {"id": f"q{i}"} for i in range(5)]
    assert [q.id for q in load(path, *records, limit=2).questions] == ["q0", "q1"]
    assert len(load(path, *records, limit=9).questions) == 5
    for bad in (0, -1):
        with pytest.raises(TaskError, match=f"limit is {bad}"):
            load(path, *records, limit=bad)
    with pytest.raises(TaskError, match="line 2"):  # errors behind the limit are found too
        load(path, GOOD, "{", limit=1)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ('{"question": ', "malformed JSON"),
        ("[1, 2]", "list: expected a JSON object"),
        ("null", "NoneType: expected a JSON object"),
        ('{"answer": NaN}', "NaN is not JSON"),
        ('{"answer": 1, "answer": 0}', "'answer' occurs twice"),
        ('{"question": "\\ud800"}', "lone surrogate"),
        ("9" * 5000, "malformed JSON"),
        ({"choices": ["a"], "answer": 0}, "question is None"),
        (GOOD | {"question": ""}, "question is ''"),
        (GOOD | {"question": 3}, "question is 3"),
        (GOOD | {"context": None}, "context is None"),
        ({"question": "q", "answer": 0}, "choices is None"),
        (GOOD | {"choices": []}, r"choices is \[\]"),
        (GOOD | {"choices": "ab"}, "choices is 'ab'"),
        (GOOD | {"choices": ["a", 1]}, "a choice is 1"),
        (GOOD | {"choices": ["a", " "]}, "a choice is ' '"),
        (GOOD | {"choices": ["a", "b", "a"]}, "the choice 'a' occurs twice"),
        ({"question": "q", "choices": ["a"]}, "answer is None"),
        (GOOD | {"answer": 2}, "answer is 2: expected the index .* from 0 to 1"),
        (GOOD | {"answer": -1}, "answer is -1"),
        (GOOD | {"answer": True}, "answer is True"),
        (GOOD | {"answer": 0.0}, r"answer is 0\.0"),
        (GOOD | {"answer": "blue"}, "answer is 'blue'"),
        (GOOD | {"id": ""}, "id is ''"),
        (GOOD | {"id": 1.5}, r"id is 1\.5"),
        (GOOD | {"id": False}, "id is False"),
    ],
)
def test_bad_lines_name_the_line(path, record, message):
    with pytest.raises(TaskError, match=f"line 3: .*{message}") as error:
        load(path, GOOD, "", record)
    assert str(path) in str(error.value)


def test_duplicate_ids(path):
    with pytest.raises(TaskError, match="questions 1 and 3 have the same id 'x'"):
        load(path, GOOD | {"id": "x"}, GOOD, GOOD | {"id": "x"})
    with pytest.raises(TaskError, match="same id 'line-1'"):
        load(path, GOOD, GOOD | {"id": "line-1"})


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "is empty"), (b" \n\n", "is empty"), (b'{"a":\n"\xff"}', "line 2: not UTF-8")],
)
def test_bad_files(path, data, message):
    path.write_bytes(data)
    with pytest.raises(TaskError, match=message):
        load_task("multiple_choice", path)


def test_missing_file_directory_and_unknown_task(tmp_path):
    with pytest.raises(TaskError, match=r"cannot read .*No such file"):
        load_task("multiple_choice", tmp_path / "absent.jsonl")
    with pytest.raises(TaskError, match=r"cannot read .*directory"):
        load_task("multiple_choice", tmp_path)
    with pytest.raises(TaskError, match="unknown task 'trivia'") as error:
        load_task("trivia", tmp_path)
    assert all(name in str(error.value) for name in TASKS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.dictionaries(st.sampled_from(["question", "choices", "answer", "id", "context"]), JSON)


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(
    lines=st.lists(RECORDS.map(json.dumps) | st.text(max_size=20), max_size=3)
    | st.just([json.dumps(GOOD)])
)
def test_any_text_gives_questions_or_a_task_error(path, lines):
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    try:
        questions = load_task("multiple_choice", path).questions
    except TaskError:
        return
    for question in questions:
        assert 0 <= question.gold < len(question.choices)
        assert all(choice.startswith(" ") and choice.strip() for choice in question.choices)


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(data=st.binary(max_size=60), name=st.sampled_from(sorted(TASKS)))
def test_any_bytes_give_only_task_errors(path, data, name):
    path.write_bytes(data)
    with pytest.raises(TaskError):
        load_task(name, path)
