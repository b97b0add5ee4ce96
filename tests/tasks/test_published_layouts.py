"""The layouts in which question files are published, beside those of the authors' own files."""

import json

import pytest

from fishjax.tasks import TaskError, load_open_task, load_task

TARGETS = {"choices": ["yes", "no"], "labels": [1, 0]}


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("task", "name", "text", "golds"),
    [
        ("sst2", "glue.tsv", 'sentence\tlabel\nits "best\t1\n"a ""b"""\t0\n', [1, 0]),
        ("sst2", "hub.csv", "idx,sentence,label\n\n0,good,1\n\n1,bad,0\n\n", [1, 0]),
        ("sst2", "hub.jsonl", lines({"sentence": "good", "label": 1, "idx": 0}), [1]),
        ("trec", "hub.csv", "text,coarse_label,fine_label\nHow far?,5,40\n", [5]),
        ("trec", "named.csv", "text,label\nHow far?,NUM\n", [5]),
        ("ag_news", "hub.jsonl", lines({"text": "t", "label": 3}), [3]),
        ("ag_news", "named.csv", "text,label\nt,Sci/Tech\n", [3]),
    ],
)
def test_columns_and_labels_as_published(tmp_path, task, name, text, golds):
    questions = load_task(task, write(tmp_path, name, text)).questions
    assert [question.gold for question in questions] == golds


def test_fields_of_a_tsv_are_unquoted_only_as_a_whole(tmp_path):
    text = 'sentence\tlabel\nits "best\t1\n"a ""b"""\t0\n'
    first, second = load_task("sst2", write(tmp_path, "glue.tsv", text)).questions
    assert first.context.startswith('its "best\n')
    assert second.context.startswith('a "b"\n')


def test_pairs_without_an_agreed_label_are_left_out(tmp_path):
    hub = [{"premise": "p", "hypothesis": "h", "label": n} for n in (0, -1, 2)]
    authors = [{"sentence1": "p", "sentence2": "h", "gold_label": g} for g in ("neutral", "-")]
    found = load_task("nli", write(tmp_path, "hub.jsonl", lines(*hub))).questions
    assert [(q.id, q.gold) for q in found] == [("row-1", 0), ("row-3", 2)]
    (one,) = load_task("nli", write(tmp_path, "snli.jsonl", lines(*authors))).questions
    assert one.context == "p\nQuestion: h True, False, or Neither?\nAnswer:"
    assert (one.gold, one.metadata) == (1, {})


def test_truthfulqa_of_the_hub(tmp_path):
    record = {"question": "Q?", "mc1_targets": TARGETS, "mc2_targets": TARGETS}
    as_lines = write(tmp_path, "hub.jsonl", lines(record))
    as_list = write(tmp_path, "hub.json", json.dumps([record]))
    for path in (as_lines, as_list):
        (question,) = load_task("truthfulqa_mc1", path).questions
        assert (question.texts, question.labels) == (("yes", "no"), (1, 0))
    for changed, message in (
        (TARGETS | {"labels": [1]}, "2 choices and 1 labels"),
        (TARGETS | {"choices": ["yes", "yes"]}, "'yes' occurs twice in mc1_targets"),
        (TARGETS | {"labels": [1, 2]}, "the label of 'no' is 2"),
    ):
        path = write(tmp_path, "bad.jsonl", lines(record | {"mc1_targets": changed}))
        with pytest.raises(TaskError, match=message):
            load_task("truthfulqa_mc1", path)


def test_commonsenseqa_and_mmlu_of_the_hub(tmp_path):
    choices = {"label": ["A", "B"], "text": ["x", "y"]}
    asked = {"id": "i", "question": "s?", "question_concept": "c", "choices": choices}
    path = write(tmp_path, "csqa.jsonl", lines(asked | {"answerKey": "B"}))
    (question,) = load_task("commonsenseqa", path).questions
    assert question.context == "Question: s?\nA. x\nB. y\nAnswer:"
    assert (question.gold, question.metadata) == (1, {"question_concept": "c"})
    short = asked | {"choices": choices | {"text": ["x"]}}
    path = write(tmp_path, "bad.jsonl", lines(short))
    with pytest.raises(TaskError, match="expected as many label as text"):
        load_task("commonsenseqa", path)
    hub = {"question": "q", "subject": "us_history", "choices": list("abcd"), "answer": 2}
    (question,) = load_task("mmlu", write(tmp_path, "mmlu.jsonl", lines(hub))).questions
    assert "about us history.\n\nq\nA. a\n" in question.context
    assert (question.gold, question.metadata) == (2, {"subject": "us_history"})
    with pytest.raises(TaskError, match="expected a list of 4"):
        load_task("mmlu", write(tmp_path, "bad.jsonl", lines(hub | {"choices": ["a"]})))


def test_legalbench_of_the_authors(tmp_path):
    folder = tmp_path / "hearsay"
    path = write(
        folder, "test.tsv", "index\tanswer\ttext\tslice\n0\tYes\tHe {{said}}.\ts\n1\tNo\tx\ts\n"
    )
    with pytest.raises(TaskError, match=r"base_prompt\.txt is missing"):
        load_task("legalbench", path)
    write(folder, "base_prompt.txt", "Is it?\nQ: {{text}}\nA:")
    first, second = load_task("legalbench", path).questions
    assert first.context == "Is it?\nQ: He {{said}}.\nA:"
    assert (first.texts, first.labels, second.labels) == (("No", "Yes"), (0, 1), (1, 0))
    assert first.metadata == {"task": "hearsay", "index": "0", "slice": "s"}


def test_open_questions_of_the_hub_and_the_authors(tmp_path):
    answer = {"value": "Twain", "aliases": ["Mark Twain", "Twain"], "type": "WikipediaEntity"}
    record = {"question": "Who?", "question_id": "tc_1", "answer": answer}
    (question,) = load_open_task("triviaqa", write(tmp_path, "t.jsonl", lines(record)))
    assert (question.id, question.aliases) == ("tc_1", ("Twain", "Mark Twain"))
    table = 'id\tprop\tquestion\tpossible_answers\ts_pop\n7\tjob\tWho?\t"[""a b"", ""c""]"\t10\n'
    (question,) = load_open_task("popqa", write(tmp_path, "p.tsv", table))
    assert (question.id, question.context) == ("7", "Q: Who?\nA:")
    assert (question.aliases, question.metadata) == (("a b", "c"), {"prop": "job", "s_pop": "10"})
    with pytest.raises(TaskError, match="line 2: possible_answers: malformed JSON"):
        load_open_task("popqa", write(tmp_path, "bad.tsv", table.replace('"[""a', '"[a')))
