"""Open questions: prompts, aliases, and one clear message for everything wrong with a file."""

import gzip
import json

import pytest

from fishjax.tasks import OPEN_TASKS, OpenQuestion, TaskError, load_open_task, load_task

OWN = {"question": "The sky is", "answers": ["blue", "azure"]}
GOLDEN = {"id": "t1", "question": "Who?", "golden_answers": ["Mark Twain", "Sam Clemens"]}


def load(folder, name, *records, **kwargs):
    path = folder / "own.jsonl"
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
    path.write_text("\n".join(lines), encoding="utf-8")
    return load_open_task(name, path, **kwargs)


def test_own_questions(tmp_path):
    extra = {"id": 7, "context": "Look up.", "exposure": 4}
    other = {"question": "日本の首都は？\n", "aliases": [" 東京 ", "東京"]}
    first, second, third = load(tmp_path, "open_qa", OWN, "", OWN | extra, other)
    assert first == OpenQuestion("line-1", "The sky is", ("blue", "azure"), {})
    assert second == OpenQuestion("7", "Look up.\nThe sky is", ("blue", "azure"), {"exposure": 4})
    assert third == OpenQuestion("line-4", "日本の首都は？\n", ("東京",), {})
    assert (first.solution, third.solution) == (" blue", "東京")


@pytest.mark.parametrize("name", ["triviaqa", "popqa"])
def test_golden_answers(tmp_path, name):
    quoted = GOLDEN | {"id": "t2", "question": '"What is ""The Solent""?"', "metadata": {"pop": 3}}
    plain = GOLDEN | {"id": "t3", "question": ' "Stop!" Who said "Go!"'}
    first, second, third = load(tmp_path, name, GOLDEN, quoted, plain)
    assert first == OpenQuestion("t1", "Q: Who?\nA:", ("Mark Twain", "Sam Clemens"), {})
    assert second.context == 'Q: What is "The Solent"?\nA:'
    assert second.metadata == {"pop": 3}
    assert third.context == 'Q: "Stop!" Who said "Go!"\nA:'


@pytest.mark.parametrize(
    ("name", "record", "message"),
    [
        ("open_qa", "[1]", "list: expected a JSON object"),
        ("open_qa", '{"answers": NaN}', "NaN is not JSON"),
        ("open_qa", {"answers": ["a"]}, "question is None"),
        ("open_qa", {"question": "q"}, "answers is None: expected a list of true answers"),
        ("open_qa", OWN | {"aliases": ["x"]}, "answers and aliases: expected one of the two"),
        ("open_qa", {"question": "q", "aliases": []}, r"aliases is \[\]"),
        ("open_qa", OWN | {"answers": "blue"}, "answers is 'blue'"),
        ("open_qa", OWN | {"answers": ["a", " "]}, "an answer is ' '"),
        ("open_qa", OWN | {"answers": [1912]}, "an answer is 1912"),
        ("open_qa", OWN | {"context": None}, "context is None"),
        ("open_qa", OWN | {"id": 1.5}, r"id is 1\.5"),
        ("triviaqa", GOLDEN | {"question": " "}, "question is ' '"),
        ("triviaqa", {"id": "i", "question": "q"}, "golden_answers is None"),
        ("popqa", GOLDEN | {"id": "x", "metadata": []}, r"metadata is \[\]: expected an object"),
    ],
)
def test_bad_lines_name_the_line(tmp_path, name, record, message):
    good = OWN if name == "open_qa" else GOLDEN
    with pytest.raises(TaskError, match=f"line 3: .*{message}"):
        load(tmp_path, name, good, "", record)


def test_files_are_checked_as_those_with_choices(tmp_path):
    with pytest.raises(TaskError, match="same id 't1'"):
        load(tmp_path, "popqa", GOLDEN, GOLDEN)
    with pytest.raises(TaskError, match="limit is 0"):
        load(tmp_path, "open_qa", OWN, limit=0)
    with pytest.raises(TaskError, match="is empty"):
        load(tmp_path, "open_qa", "")
    with pytest.raises(TaskError, match="unknown task 'mmlu'") as error:
        load(tmp_path, "mmlu", OWN)
    assert all(name in str(error.value) for name in OPEN_TASKS)
    assert "fishjax score" in str(error.value)
    with pytest.raises(TaskError, match="generated first, fishjax generate"):
        load_task("popqa", tmp_path / "own.jsonl")
    assert [q.id for q in load(tmp_path, "open_qa", OWN, OWN, OWN, limit=2)] == ["line-1", "line-2"]
    path = tmp_path / "own.jsonl"
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert len(load_open_task("open_qa", path)) == 3
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(TaskError, match="damaged gzip"):
        load_open_task("open_qa", path)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "file", "prompt", "first"),
    [
        (
            "triviaqa",
            "triviaqa/triviaqa_dev_1000.jsonl",
            'Q: Who wrote "A cauliflower is nothing but a cabbage with a college education"?\nA:',
            " Mark Twain",
        ),
        (
            "popqa",
            "popqa/popqa_1000.jsonl",
            "Q: Who was the composer of Easy Living?\nA:",
            " Ralph Rainger",
        ),
    ],
)
def test_real_files(shared_data, name, file, prompt, first):
    questions = load_open_task(name, shared_data / file)
    assert len(questions) == len({q.id for q in questions}) == 1000
    assert (questions[0].context, questions[0].solution) == (prompt, first)
    assert not any('""' in q.context for q in questions)
    if name == "popqa":
        assert questions[0].metadata["s_pop"] == 1381
