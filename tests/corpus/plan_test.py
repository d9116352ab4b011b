"""Which task reads which file."""

import pathlib

from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.core.corpus_config import CorpusConfig, ExecutionConfig
from seallm_jax.corpus.input_file import InputFile
from seallm_jax.corpus.plan import Plan


def plan(sizes: list[int], tasks: int, **config) -> Plan:
    files = tuple(InputFile(f"/in/{n}", str(n), "jsonl", size=size) for n, size in enumerate(sizes))
    return Plan(pathlib.Path("/work"), files, CorpusConfig(**config), 0, tasks)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40), st.integers(1, 8))
def test_every_file_has_one_task_and_the_load_is_even(sizes, tasks):
    parts = [plan(sizes, tasks).files_of(task) for task in range(tasks)]
    assert sorted(number for part in parts for number in part) == list(range(len(sizes)))
    assert all(part == sorted(part) for part in parts)
    loads = [sum(max(1, sizes[number]) for number in part) for part in parts]
    assert max(loads) - min(loads) <= max(max(1, size) for size in sizes)


def test_the_digest_follows_what_determines_the_result_and_nothing_else():
    digest = plan([1, 2], 2).digest
    assert plan([1, 2], 5, execution=ExecutionConfig(executor="slurm", workers=3)).digest == digest
    others = [plan([1, 3], 2), plan([1, 2], 2, minimum_characters=5)]
    assert len({digest, *(other.digest for other in others)}) == 3


def test_other_evaluation_text_is_another_plan(tmp_path):
    quiz = tmp_path / "quiz.jsonl"
    digests = []
    for text in ("one", "two"):
        quiz.write_text(text)
        files = (InputFile("/in/0", "0", "jsonl"),)
        digests.append(Plan(tmp_path, files, CorpusConfig(), 0, 1, (str(quiz),)).digest)
    assert digests[0] != digests[1]
