"""Language modelling: lambada_openai and lambada_standard, the last word of a passage (Paperno et al. 2016, arXiv
1606.06031), and wikitext, the perplexity of running text (Merity et al. 2017, arXiv 1609.07843)."""

from __future__ import annotations

from collections.abc import Iterable

from zoo import Paper, Source, SourceFile, Task, hookimpl
from zoo_lambada import needs, protocols

LAMBADA = Paper(
    title="The LAMBADA dataset: Word prediction requiring a broad discourse context",
    authors="Denis Paperno, Germán Kruszewski, Angeliki Lazaridou, Quan Ngoc Pham, Raffaella Bernardi, Sandro Pezzelle,"
    " Marco Baroni, Gemma Boleda, Raquel Fernández",
    venue="ACL",
    year=2016,
    arxiv="1606.06031",
)
WIKITEXT = Paper(
    title="Pointer Sentinel Mixture Models",
    authors="Stephen Merity, Caiming Xiong, James Bradbury, Richard Socher",
    venue="ICLR",
    year=2017,
    arxiv="1609.07843",
)
EXAMPLES = "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2"
WIKITEXT_2 = tuple(
    SourceFile(name=f"wikitext-2/{name}.txt", urls=(f"{EXAMPLES}/{name}.txt",), sha256=digest, bytes=size)
    for name, size, digest in (
        ("train", 10_797_148, "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f"),
        ("valid", 1_121_681, "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"),
        ("test", 1_256_449, "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0"),
    )
)
OPENAI = SourceFile(
    name="lambada/lambada_test.jsonl",
    urls=(
        "https://huggingface.co/datasets/EleutherAI/lambada_openai/resolve/main/data/lambada_test.jsonl",
        "https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl",
    ),
    sha256="4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226",
    bytes=1_819_752,
)
STANDARD = SourceFile(
    name="lambada/lambada-dataset.tar.gz",
    urls=("https://zenodo.org/record/2630551/files/lambada-dataset.tar.gz",),
    sha256="8fbe499096ddbdcbbd0cac406861b5026fb451d15b8fe04e0e4f3d082f2ad5d7",
    bytes=334_527_694,
)
# every byte of the test text guessed among 256, at its 5.1 bytes a word
GUESSED_BYTES = 256 ** (1_256_449 / 245_569)


@hookimpl
def zoo_tasks() -> Iterable[Task]:
    """The two forms of LAMBADA, and WikiText."""
    for name, title, file, length, what in (
        ("lambada_openai", "LAMBADA (OpenAI's form)", OPENAI, 965, "natural case and punctuation"),
        ("lambada_standard", "LAMBADA (as published)", STANDARD, 987, "lower case, tokens apart"),
    ):
        yield Task(
            name=name,
            suite="language",
            title=title,
            version="1",
            kind="language_modeling",
            vocab_size=259,
            classes=0,
            length=length,
            metrics=("accuracy", "perplexity"),
            chance=0.0,
            license="CC-BY-4.0 (passages); WikiText-2, to train on: CC-BY-SA-3.0",
            source=Source(
                paper=LAMBADA,
                identifiers={
                    "zenodo": "10.5281/zenodo.2630551",
                    "hugging face": "EleutherAI/lambada_openai" if name == "lambada_openai" else "cimec/lambada",
                },
                files=(file, *WIKITEXT_2),
            ),
            data=f"zoo_lambada.lambada:{'OpenAI' if name == 'lambada_openai' else 'Standard'}Data",
            options="zoo_lambada.options:LambadaOptions",
            protocols=protocols.LAMBADA,
            needs=needs.OPENAI if name == "lambada_openai" else needs.STANDARD,
            sample_files="zoo_lambada.sample_files:write_lambada",
            aliases=("lambada",) if name == "lambada_openai" else (),
            description=f"The last word of a passage of a novel ({what}), after training on another corpus.",
        )
    yield Task(
        name="wikitext",
        suite="language",
        title="WikiText",
        version="1",
        kind="language_modeling",
        vocab_size=259,
        classes=0,
        length=1_024,
        metrics=("word_perplexity", "byte_perplexity", "bits_per_byte"),
        chance=GUESSED_BYTES,
        higher_is_better=False,
        license="CC-BY-SA-3.0",
        source=Source(
            paper=WIKITEXT,
            identifiers={"hugging face": "Salesforce/wikitext", "WikiText-2": EXAMPLES},
            files=WIKITEXT_2,
        ),
        data="zoo_lambada.wikitext:WikitextData",
        options="zoo_lambada.options:WikitextOptions",
        protocols=protocols.WIKITEXT,
        objectives=("causal_lm",),
        needs=needs.WIKITEXT,
        sample_files="zoo_lambada.sample_files:write_wikitext",
        description="The perplexity of Wikipedia's articles, read from beginning to end.",
    )
