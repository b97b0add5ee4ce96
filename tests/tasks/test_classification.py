"""Classes as words after a prompt: each set's prompt verbatim, its real counts, bad files."""

import inspect

import pytest

from fishjax.tasks import OPEN_TASKS, TASKS, TaskError, load_task


def write(folder, text):
    path = folder / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_texts_label_and_metadata(tmp_path):
    path = write(tmp_path, 'id,text,label\n7,"Ça, {text}\nva? ",3\n8,x,0\n')
    first, second = load_task("ag_news", path).questions
    assert first.context.endswith("\n\nArticle: Ça, {text}\nva?\nAnswer:")
    assert first.choices == (" World", " Sports", " Business", " Technology")
    assert first.texts == ("World", "Sports", "Business", "Technology")
    assert (first.id, first.gold, first.metadata) == ("row-1", 3, {"id": "7"})
    assert (second.id, second.gold) == ("row-2", 0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sst2", "", "is empty"),
        ("sst2", "text,label\n", "holds no questions"),
        ("sst2", "text,class\nx,0\n", r"line 1: columns .* lack \['label'\]"),
        ("nli", "text,label\nx,0\n", r"lack \['premise', 'hypothesis'\]"),
        ("sst2", '{"a": 1, ' + '"b": 2, ' * 99 + '"c": 3}', r"\.\.\. lack \['text', 'label'\]"),
        ("sst2", "text,label\nx,0\n ,1\n", "line 3: text is ' '"),
        ("sst2", "text,label\nx,2\n", "line 2: label is '2': expected one of 0 negative, 1 posit"),
        ("sst2", "text,label\nx,NaN\n", "label is 'NaN'"),
        ("sst2", "text,label\nx,-1\n", "label is '-1'"),
        ("sst2", "text,label\nx,\n", "label is ''"),
        ("sst2", "text,label\nx\n", "1 fields: expected 2"),
        ("sst2", "text,text,label\nx,y,0\n", "the column 'text' occurs twice"),
        ("trec", "text\nx\n", r"lack \['label'\] \(known also: label as coarse_label\)"),
        ("nli", "premise,hypothesis,label\na,b,-1\n", "holds no questions"),
        ("nli", "premise,hypothesis,label\na,b,3\n", "expected one of 0 True, 1 Neither, 2 False"),
    ],
)
def test_bad_files(tmp_path, name, text, message):
    with pytest.raises(TaskError, match=message):
        load_task(name, write(tmp_path, text))


def test_every_reader_says_what_it_reads():
    for readers in (TASKS, OPEN_TASKS):
        for name, reader in readers.items():
            assert len(inspect.getdoc(reader).split("\n")[0]) > 20, name
    assert inspect.getdoc(TASKS["nli"]) == (
        "A csv, tsv or jsonl with premise, hypothesis and label (0 True, 1 Neither, 2 False)."
    )


AG_NEWS = """\
Classify the news articles into the categories of World, Sports, Business, and Technology.

Article: Unions representing workers at Turner   Newall say they are 'disappointed' after talks \
with stricken parent firm Federal Mogul.
Answer:"""

SST2 = """\
one long string of cliches .
Question: Is this sentence positive or negative?
Answer:"""

TREC = """\
Classify the questions based on whether their answer type is a Number, Location, Person, \
Description, Entity, or Abbreviation.

Question: How far is it from Denver to Aspen ?
Answer Type:"""

SNLI = """\
This church choir sings to the masses as they sing joyous songs from the book at a church .
Question: The church has cracks in the ceiling . True, False, or Neither?
Answer:"""

MNLI = """\
In Temple Bar , the bookshop at the Gallery of Photography carries a large selection of \
photographic publications , and the Flying Pig is a secondhand bookshop .
Question: There is a bookshop at the gallery . True, False, or Neither?
Answer:"""


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "file", "counts", "prompt", "answer"),
    [
        ("ag_news", "ag_news/test.csv.gz", (1900,) * 4, AG_NEWS, " Business"),
        ("sst2", "sst2/dev.csv", (428, 444), SST2, " negative"),
        ("trec", "trec/test.csv", (9, 94, 138, 65, 81, 113), TREC, " Number"),
        ("nli", "nli/snli_test.csv.gz", (3368, 3219, 3237), SNLI, " Neither"),
        ("nli", "nli/mnli_matched_1000.csv", (373, 311, 316), MNLI, " True"),
    ],
)
def test_real_files(shared_data, name, file, counts, prompt, answer):
    questions = load_task(name, shared_data / file).questions
    assert tuple(sum(q.gold == i for q in questions) for i in range(len(counts))) == counts
    assert len(questions) == sum(counts)
    assert questions[0].context == prompt
    assert questions[0].solution == answer
    if name == "trec":
        assert questions[0].metadata == {"coarse": "NUM", "fine": "dist"}
        assert {(q.metadata["coarse"], q.solution) for q in questions} == {
            ("ABBR", " Abbreviation"), ("ENTY", " Entity"), ("DESC", " Description"),
            ("HUM", " Person"), ("LOC", " Location"), ("NUM", " Number"),
        }  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("ag_news", "ag_news/train_10k.csv.gz", 10001),
        ("sst2", "sst2/train.csv", 6920),
        ("sst2", "sst2/test.csv", 1821),
        ("trec", "trec/train.csv", 5452),
        ("nli", "nli/snli_dev.csv.gz", 9842),
        ("nli", "nli/mnli_mismatched_1000.csv", 1000),
    ],
)
def test_real_files_are_complete(shared_data, name, file, count):
    assert len(load_task(name, shared_data / file).questions) == count
