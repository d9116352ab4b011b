"""The formats of multiple-choice files, and what is said about lines that are none."""

import json

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.sample import sample_path
from seallm_jax.evaluation.choice_items import read_choice_items


def read(tmp_path, *records, name="quiz_id.jsonl"):
    file = tmp_path / name
    file.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), encoding="utf-8")
    return read_choice_items(file)


def test_question_choices_answer(tmp_path):
    (item,) = read(tmp_path, {"question": " Apa itu? ", "choices": ["air ", "api"], "answer": 1})
    assert (item.task, item.language, item.answer) == ("quiz", "id", 1)
    assert item.context == "Apa itu?\n" and item.continuations == item.choices == ("air", "api")


@pytest.mark.parametrize("answer", [1, "B", "b", "ခ", "ข", "api", " api "])
def test_answers_are_indices_letters_or_texts(tmp_path, answer):
    (item,) = read(tmp_path, {"question": "q", "choices": ["air", "api"], "answer": answer})
    assert item.answer == 1


def test_xcopa_is_worded_as_the_harness_does(tmp_path):
    record = {"premise": "Tôi khát.", "choice1": "Trời nóng.", "choice2": "Trời mưa.", "question": "cause", "label": 0}
    (item,) = read(tmp_path, record, name="xcopa_val_vi.jsonl")
    assert (item.task, item.language) == ("xcopa_val", "vi")
    assert item.context == "Tôi khát bởi vì" and item.continuations == (" trời nóng.", " trời mưa.")
    (item,) = read(tmp_path, record | {"question": "effect", "premise": "ผู้ชายเปิดก๊อกนํ้า"}, name="xcopa_th.jsonl")
    assert item.context == "ผู้ชายเปิดก๊อกนํ้า ดังนั้น"  # there is no full stop to take off


def test_global_mmlu_and_belebele(tmp_path):
    options = {"option_a": "satu", "option_b": "dua", "option_c": "tiga", "option_d": "empat"}
    nested = {"label": "C", "prompts": [{"question": "Berapa?", **options}]}
    (item,) = read(tmp_path, nested)
    assert item.choices == ("satu", "dua", "tiga", "empat") and item.answer == 2
    record = {"flores_passage": "Teks.", "question": "Apa?", "correct_answer_num": "2"}
    (item,) = read(tmp_path, record | {f"mc_answer{n}": f"jawab {n}" for n in (2, 1, 4, 3)})
    assert item.context == "Teks.\nApa?\n" and item.choices[item.answer] == "jawab 2"


def test_the_language_is_that_of_the_record_or_of_the_file(tmp_path):
    record = {"question": "q", "choices": ["a", "b"], "answer": 0}
    assert read(tmp_path, record | {"lang": "th"})[0].language == "th"
    assert read(tmp_path, record, name="km.jsonl")[0].language == "km"
    with pytest.raises(SeallmError, match="quiz.jsonl, item 1: no language in `lang`"):
        read(tmp_path, record, name="quiz.jsonl")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"question": "q", "choices": ["a"], "answer": 0}, "two choices or more"),
        ({"question": "q", "choices": ["a", " "], "answer": 0}, "all of them text"),
        ({"question": "q", "choices": ["a", "b"], "answer": 2}, "answer is 2, but there are 2 choices"),
        ({"question": "q", "choices": ["a", "b"], "answer": True}, "answer is True, which is no index"),
        ({"question": "q", "choices": ["a", "b"], "answer": "yes"}, "'yes', which is no index"),
        ({"question": "q", "choices": ["a", "b"], "answer": "C"}, "answer is 'C', but there are 2 choices"),
        ({"question": "q", "choices": ["a", "b"], "answer": ""}, "answer is '', which is no index"),
        ({"question": "q", "choices": ["a", "b"]}, "no answer"),
        ({"choices": ["a", "b"], "answer": 0}, "question"),
        (["q"], "not an object"),
        (
            {"premise": "p", "choice1": "a", "choice2": "b", "question": "cause", "label": 0, "lang": "km"},
            "no words for cause and effect in 'km'",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path, record, message):
    good = {"question": "q", "choices": ["a", "b"], "answer": 0}
    with pytest.raises(SeallmError, match=rf"quiz_id\.jsonl, item 2: .*{message}"):
        read(tmp_path, good, record)


def test_nothing_to_read(tmp_path):
    with pytest.raises(SeallmError, match="does not exist"):
        read_choice_items(tmp_path / "none")
    with pytest.raises(SeallmError, match="holds no multiple-choice items"):
        read_choice_items(tmp_path)


def test_the_sample_can_be_read():
    items = read_choice_items(sample_path("choices"))
    assert {item.task for item in items} == {"choices"}
    assert {"th", "lo", "vi"} <= {item.language for item in items}
