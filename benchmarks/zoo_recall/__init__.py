"""Recall: mqar, selective_copying, induction_heads, needle, kv_retrieval, generated as they were published."""

from __future__ import annotations

from collections.abc import Iterable

from zoo import Paper, Source, Task, hookimpl
from zoo_recall import protocols

ZOOLOGY = Paper(
    title="Zoology: Measuring and Improving Recall in Efficient Language Models",
    authors="Simran Arora, Sabri Eyuboglu, Aman Timalsina, Isys Johnson, Michael Poli, James Zou, Atri Rudra,"
    " Christopher Ré",
    venue="ICLR",
    year=2024,
    arxiv="2312.04927",
)
MAMBA = Paper(
    title="Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
    authors="Albert Gu, Tri Dao",
    venue="COLM",
    year=2024,
    arxiv="2312.00752",
)
RULER = Paper(
    title="RULER: What's the Real Context Size of Your Long-Context Language Models?",
    authors="Cheng-Ping Hsieh, Simeng Sun, Samuel Kriman, Shantanu Acharya, Dima Rekesh, Fei Jia, Yang Zhang,"
    " Boris Ginsburg",
    venue="COLM",
    year=2024,
    arxiv="2404.06654",
)
MIDDLE = Paper(
    title="Lost in the Middle: How Language Models Use Long Contexts",
    authors="Nelson F. Liu, Kevin Lin, John Hewitt, Ashwin Paranjape, Michele Bevilacqua, Fabio Petroni, Percy Liang",
    venue="TACL",
    year=2024,
    arxiv="2307.03172",
)

SUITE = (
    "Synthetic tests of recall: the answer stands in the input, and the model must find it and repeat it exactly; "
    "knowledge of language does not help."
)


@hookimpl
def zoo_tasks() -> Iterable[Task]:
    """The five tasks of the suite."""
    yield Task(
        name="mqar",
        suite="recall",
        title="MQAR",
        version="1",
        kind="recall",
        vocab_size=8_195,
        classes=4_096,
        length=256,
        metrics=("accuracy", "exact"),
        chance=1 / 4_096,
        license="Apache-2.0 (the published generator)",
        source=Source(
            paper=ZOOLOGY,
            identifiers={"code": "https://github.com/HazyResearch/zoology, zoology/data/multiquery_ar.py"},
        ),
        data="zoo_recall.mqar:MqarData",
        options="zoo_recall.options:MqarOptions",
        protocols=protocols.MQAR,
        description="Multi-query associative recall: after a list of keys, each with its value, the keys come again one"
        " by one; give the value of each.",
        trivial_answer="a guess among the values of the sequence",
        suite_description=SUITE,
    )
    yield Task(
        name="selective_copying",
        suite="recall",
        title="Selective copying",
        version="1",
        kind="recall",
        vocab_size=19,
        classes=14,
        length=4_112,
        metrics=("accuracy", "exact"),
        chance=1 / 14,
        license="Apache-2.0 (the published generator)",
        source=Source(
            paper=MAMBA,
            identifiers={"layout": "https://github.com/state-spaces/s4, src/dataloaders/datasets/copying.py"},
        ),
        data="zoo_recall.selective_copying:SelectiveCopyingData",
        options="zoo_recall.options:SelectiveCopyingOptions",
        protocols=protocols.SELECTIVE_COPYING,
        description="Data tokens stand at random places among noise tokens; after all of them, repeat the data tokens"
        " in order.",
        trivial_answer="always the most frequent token of training",
        suite_description=SUITE,
    )
    yield Task(
        name="induction_heads",
        suite="recall",
        title="Induction heads",
        version="1",
        kind="recall",
        vocab_size=19,
        classes=15,
        length=256,
        metrics=("accuracy",),
        chance=1 / 15,
        license="Apache-2.0 (the published generator)",
        source=Source(
            paper=MAMBA,
            identifiers={"first published": "arXiv 2212.14052 (H3)"},
        ),
        data="zoo_recall.induction_heads:InductionHeadsData",
        options="zoo_recall.options:InductionHeadsOptions",
        protocols=protocols.INDUCTION_HEADS,
        description="A trigger token stands once among random tokens and again at the end; give the token that followed"
        " it the first time.",
        trivial_answer="always the most frequent token of training",
        suite_description=SUITE,
    )
    yield Task(
        name="needle",
        suite="recall",
        title="Needle in a haystack",
        version="1",
        kind="recall",
        vocab_size=259,
        classes=10,
        length=4_096,
        metrics=("accuracy",),
        chance=1 / 9_000_000,
        license="Apache-2.0 (the wording)",
        source=Source(
            paper=RULER,
            identifiers={
                "code": "https://github.com/NVIDIA/RULER, scripts/data/synthetic/niah.py",
                "first published": "https://github.com/gkamradt/LLMTest_NeedleInAHaystack",
            },
        ),
        data="zoo_recall.needle:NeedleData",
        options="zoo_recall.text_options:NeedleOptions",
        protocols=protocols.NEEDLE,
        description="One line of a long filler text states a number (the needle in the haystack): answer with it at "
        "the end, wherever its line stands.",
        trivial_answer="always the most frequent number of training",
        suite_description=SUITE,
    )
    yield Task(
        name="kv_retrieval",
        suite="recall",
        title="Key-value retrieval",
        version="1",
        kind="recall",
        vocab_size=259,
        classes=16,
        length=6_400,
        metrics=("accuracy",),
        chance=0.0,
        license="MIT (the published files)",
        source=Source(
            paper=MIDDLE,
            identifiers={
                "files": "https://github.com/nelson-liu/lost-in-the-middle, kv_retrieval_data/"
                "kv-retrieval-{75,140,300}_keys.jsonl.gz"
            },
        ),
        data="zoo_recall.kv_retrieval:KvRetrievalData",
        options="zoo_recall.text_options:KvRetrievalOptions",
        protocols=protocols.KV_RETRIEVAL,
        description="A list of random keys and values, then one of the keys; give its value, wherever its pair stands"
        " in the list.",
        trivial_answer="a guess among the values of the list",
        suite_description=SUITE,
    )
