"""Language modelling: lambada_openai and lambada_standard, the last word of a passage (Paperno et al. 2016, arXiv
1606.06031), and wikitext, the perplexity of running text (Merity et al. 2017, arXiv 1609.07843)."""

from __future__ import annotations

from collections.abc import Iterable

from zoo import Paper, Source, Task, hookimpl
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
# every byte of the test text guessed among 256, at its 5.1 bytes a word
GUESSED_BYTES = 256 ** (1_256_449 / 245_569)
SUITE = "Language modelling of running text: how well a model predicts what comes next."


@hookimpl
def zoo_tasks() -> Iterable[Task]:
    """The two forms of LAMBADA, and WikiText."""
    for name, title, file, length, what in (
        ("lambada_openai", "LAMBADA (OpenAI's form)", needs.OPENAI_FILE, 965, "natural case and punctuation"),
        ("lambada_standard", "LAMBADA (as published)", needs.STANDARD_ARCHIVE, 987, "lower case, tokens apart"),
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
                files=(file, *needs.WIKITEXT_2_FILES),
            ),
            data=f"zoo_lambada.lambada:{'OpenAI' if name == 'lambada_openai' else 'Standard'}Data",
            options="zoo_lambada.options:LambadaOptions",
            protocols=protocols.LAMBADA,
            needs=needs.OPENAI if name == "lambada_openai" else needs.STANDARD,
            sample_files="zoo_lambada.sample_files:write_lambada",
            aliases=("lambada",) if name == "lambada_openai" else (),
            description="Predict the last word of a passage of a novel, which takes the whole passage, not only its"
            f" last sentence ({what}); the training text is another corpus.",
            trivial_answer="the word that is right most often; by perplexity, each token as likely as it is in the"
            " training text",
            suite_description=SUITE,
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
            identifiers={"hugging face": "Salesforce/wikitext", "WikiText-2": needs.WIKITEXT_2},
            files=needs.WIKITEXT_2_FILES,
        ),
        data="zoo_lambada.wikitext:WikitextData",
        options="zoo_lambada.options:WikitextOptions",
        protocols=protocols.WIKITEXT,
        objectives=("causal_lm",),
        needs=needs.WIKITEXT,
        sample_files="zoo_lambada.sample_files:write_wikitext",
        description="Predict every next byte of Wikipedia articles, read from beginning to end; the loss is given as"
        " perplexity per word.",
        suite_description=SUITE,
    )
