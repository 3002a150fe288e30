"""Long Range Arena: listops, text, retrieval, image, pathfinder, pathx (Tay et al. 2021, arXiv 2011.04006); and
retrieval_books, a suite of its own for those who have not the texts of retrieval."""

from __future__ import annotations

from collections.abc import Iterable

from zoo import Paper, Source, Task, hookimpl
from zoo_lra import needs, protocols

LRA = Paper(
    title="Long Range Arena: A Benchmark for Efficient Transformers",
    authors="Yi Tay, Mostafa Dehghani, Samira Abnar, Yikang Shen, Dara Bahri, Philip Pham, Jinfeng Rao, Liu Yang,"
    " Sebastian Ruder, Donald Metzler",
    venue="ICLR",
    year=2021,
    arxiv="2011.04006",
)
RELEASE = "https://storage.googleapis.com/long-range-arena/lra_release.gz"
SUITE = "Long Range Arena (Tay et al. 2021): classification of long sequences of symbols, bytes or pixels."
BOOKS = "A stand-in for Long Range Arena's retrieval, made of public-domain books; its scores do not compare with that."


@hookimpl
def zoo_tasks() -> Iterable[Task]:
    """The six tasks of the suite in the order of its paper, and retrieval_books."""
    yield Task(
        name="listops",
        suite="lra",
        title="ListOps",
        version="1",
        kind="classification",
        vocab_size=17,
        classes=10,
        length=2_000,
        metrics=("accuracy",),
        chance=0.1,
        license="Apache-2.0 (generator)",
        source=Source(
            paper=LRA,
            identifiers={"release": RELEASE, "files": "listops-1000/basic_{train,val,test}.tsv"},
        ),
        data="zoo_lra.listops:ListOpsData",
        options="zoo_lra.options:ListOpsOptions",
        protocols=protocols.LISTOPS,
        description="Evaluate a nested expression over digits, such as [MAX 2 [MIN 4 7] 0], with MAX, MIN, MED (median)"
        " and SM (sum modulo 10); the answer is one of ten digits.",
        suite_description=SUITE,
    )
    yield Task(
        name="text",
        suite="lra",
        title="Text",
        version="1",
        kind="classification",
        vocab_size=258,
        classes=2,
        length=4_096,
        metrics=("accuracy",),
        chance=0.5,
        license="none stated; cite Maas et al. 2011",
        source=Source(
            paper=LRA,
            identifiers={
                "files": "https://ai.stanford.edu/~amaas/data/sentiment/",
                "hugging face": "stanfordnlp/imdb",
            },
            files=(needs.IMDB_ARCHIVE,),
            instead=(needs.IMDB_PARQUET,),
        ),
        data="zoo_lra.text:TextData",
        options="zoo_lra.options:TextOptions",
        protocols=protocols.TEXT,
        needs=needs.TEXT,
        sample_files="zoo_lra.sample_files:write_imdb",
        description="Is a film review of IMDB positive or negative? It is read byte by byte.",
        suite_description=SUITE,
    )
    yield Task(
        name="retrieval",
        suite="lra",
        title="Retrieval",
        version="1",
        kind="pair_classification",
        vocab_size=258,
        classes=2,
        length=4_000,
        metrics=("accuracy",),
        chance=0.5,
        license="the texts may not be redistributed (AAN)",
        source=Source(
            paper=LRA,
            identifiers={"release": RELEASE, "files": "tsv_data/new_aan_pairs.{train,eval,test}.tsv"},
        ),
        data="zoo_lra.retrieval:RetrievalData",
        options="zoo_lra.options:RetrievalOptions",
        protocols=protocols.RETRIEVAL,
        needs=needs.RETRIEVAL,
        sample_files="zoo_lra.sample_files:write_aan",
        description="Does one of two papers (ACL Anthology Network) cite the other? Each is read as up to 4,000 bytes"
        " and encoded apart from the other.",
        suite_description=SUITE,
    )
    yield Task(
        name="image",
        suite="lra",
        title="Image",
        version="1",
        kind="classification",
        vocab_size=256,
        classes=10,
        length=1_024,
        metrics=("accuracy",),
        chance=0.1,
        license="none stated; cite Krizhevsky 2009",
        source=Source(
            paper=LRA,
            identifiers={
                "files": "https://www.cs.toronto.edu/~kriz/cifar.html",
                "hugging face": "uoft-cs/cifar10",
            },
            files=(needs.CIFAR_ARCHIVE,),
            instead=(needs.CIFAR_PARQUET,),
        ),
        data="zoo_lra.image:ImageData",
        options="zoo_lra.options:ImageOptions",
        protocols=protocols.IMAGE,
        needs=needs.IMAGE,
        sample_files="zoo_lra.sample_files:write_cifar",
        description="Which of ten classes does a picture of CIFAR-10 show? Its pixels, in grey, are read one after the"
        " other.",
        suite_description=SUITE,
    )
    for name, title, length, settings in (
        ("pathfinder", "Pathfinder", 1_024, protocols.pictures(**protocols.PATHFINDER_QUICK)),
        ("pathx", "Path-X", 16_384, protocols.pictures(**protocols.PATHX_QUICK)),
    ):
        yield Task(
            name=name,
            suite="lra",
            title=title,
            version="1",
            kind="classification",
            vocab_size=256,
            classes=2,
            length=length,
            metrics=("accuracy",),
            chance=0.5,
            license="MIT (generator)",
            source=Source(
                paper=LRA,
                identifiers={"release": RELEASE, "files": "pathfinder{32,128}/curv_contour_length_14"},
            ),
            data=f"zoo_lra.pathfinder:{'PathXData' if name == 'pathx' else 'PathfinderData'}",
            options="zoo_lra.options:PathfinderOptions",
            protocols=settings,
            # 64 pictures of 16,384 pixels are minutes of training; the published runs see 32 million
            cost_only=("quick",) if name == "pathx" else (),
            description="Are the two discs in a drawing the ends of one dashed curve? Other curves distract; its"
            " pixels are read one after the other.",
            suite_description=SUITE,
        )
    yield Task(
        name="retrieval_books",
        suite="books",
        title="Retrieval from books",
        version="1",
        kind="pair_classification",
        vocab_size=258,
        classes=2,
        length=4_000,
        metrics=("accuracy",),
        chance=0.5,
        license="that of your books; PG-19's are in the public domain",
        source=Source(
            identifiers={
                "code": "https://github.com/google-deepmind/pg19",
                "files": "gs://deepmind-gutenberg/{train,validation,test}/*.txt",
                "hugging face": "deepmind/pg19",
            },
        ),
        data="zoo_lra.retrieval_books:BooksData",
        options="zoo_lra.options:BooksOptions",
        protocols=protocols.RETRIEVAL,
        needs=needs.BOOKS,
        # 5,000 pairs are minutes of training; up to 24,000 were not enough for any that was tried (docs/quick.md)
        cost_only=("quick",),
        sample_files="zoo_lra.sample_files:write_books",
        description="Do two passages come from the same book? Each is read as up to 4,000 bytes and encoded"
        " apart from the other.",
        suite_description=BOOKS,
    )
