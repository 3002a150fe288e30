"""The files of the tasks: public ones, and what a user must bring. No torch or NumPy here."""

from __future__ import annotations

from zoo import SourceFile

WIKITEXT = (
    "WikiText-2 or WikiText-103 (Hugging Face Salesforce/wikitext; a folder wikitext-2 or wikitext-103 with"
    " wiki.{train,valid,test}.tokens or {train,valid,test}.txt)"
)
CORPUS = (
    "a corpus to train on: a folder wikitext-2 or wikitext-103 with wiki.{train,valid,test}.tokens or"
    " {train,valid,test}.txt, a folder pg19 with {train,validation,test}/*.txt, or any text by --set task.corpus=PATH"
)
OPENAI = f"lambada/lambada_test.jsonl (1.8 MB, Hugging Face EleutherAI/lambada_openai), and {CORPUS}"
STANDARD = (
    "lambada/lambada_test_plain_text.txt, or lambada-dataset.tar.gz, which holds it (335 MB,"
    f" https://zenodo.org/record/2630551), and {CORPUS}"
)

PASSAGES = ("lambada*",)
"""Text files that may lie beside books and are test passages, not a corpus."""
WIKITEXT_2 = "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2"
WIKITEXT_2_FILES = tuple(
    SourceFile(name=f"wikitext-2/{name}.txt", urls=(f"{WIKITEXT_2}/{name}.txt",), sha256=digest, bytes=size)
    for name, size, digest in (
        ("train", 10_797_148, "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f"),
        ("valid", 1_121_681, "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"),
        ("test", 1_256_449, "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0"),
    )
)
OPENAI_FILE = SourceFile(
    name="lambada/lambada_test.jsonl",
    urls=(
        "https://huggingface.co/datasets/EleutherAI/lambada_openai/resolve/main/data/lambada_test.jsonl",
        "https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl",
    ),
    sha256="4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226",
    bytes=1_819_752,
)
STANDARD_ARCHIVE = SourceFile(
    name="lambada/lambada-dataset.tar.gz",
    urls=("https://zenodo.org/record/2630551/files/lambada-dataset.tar.gz",),
    sha256="8fbe499096ddbdcbbd0cac406861b5026fb451d15b8fe04e0e4f3d082f2ad5d7",
    bytes=334_527_694,
)
STANDARD_TEXT = "lambada_test_plain_text.txt"
"""The member of the archive with the test passages."""
CHECKSUMS = {
    **{file.name.rpartition("/")[2]: file.sha256 for file in (OPENAI_FILE, STANDARD_ARCHIVE)},
    STANDARD_TEXT: "4ab6062b68422bf2e83653d367c9765d42404f7ec21b8b59b6518b45606aaef2",
}
"""sha256 of the published files of passages, by name."""
