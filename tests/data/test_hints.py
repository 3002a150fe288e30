"""Messages about files lead to what works: archives of one's own, packed and unpacked files, commands to copy."""

from __future__ import annotations

import gzip
import shlex
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import zoo
from tests.data.test_prepare_from import KEY_VALUES, bring, prepare
from zoo import registry
from zoo.cli import app

PUBLISHED = {"text": "aclImdb_v1.tar.gz", "image": "cifar-10-binary.tar.gz"}
READERS = [n for n, e in registry().tasks.items() if "path" in e.record.load_options().__dataclass_fields__]


def pack(task: str, folder: Path, name: str) -> Path:
    """An archive of small files of a task, under a name."""
    (place,) = bring(task, folder / "unpacked").iterdir()
    packing = {".xz": "w:xz", ".bz2": "w:bz2", ".tar": "w"}.get(Path(name).suffix, "w:gz")
    with tarfile.open(folder / name, packing) as archive:
        archive.add(place, place.name)
    shutil.rmtree(folder / "unpacked")
    return folder / name


def refused(*args: str) -> str:
    with pytest.raises(zoo.UserError) as caught:
        CliRunner().invoke(app, ["data", "prepare", *args, "--protocol", "smoke"], catch_exceptions=False)
    return str(caught.value)


@pytest.mark.parametrize("name", ["mine.tar.gz", "backup.gz", "photos 2.tar", "a.tbz", "x.tar.xz", "y.bz2", "noend"])
@pytest.mark.parametrize("task", PUBLISHED)
def test_an_archive_of_one_s_own_is_refused_under_a_published_name_and_read_under_any_other(
    task: str, name: str, tmp_path: Path
) -> None:
    archive = pack(task, tmp_path, PUBLISHED[task])
    message = refused(task, "--from", str(archive))
    assert "the published file has" in message
    assert "give it another name and name the file itself: --from FILE" in message
    own = pack(task, tmp_path, name)
    row = prepare(task, "--from", str(own), "--protocol", "smoke")
    assert list(row["provenance"]["files"]) == [name]


def test_an_archive_of_another_task_is_not_taken(tmp_path: Path) -> None:
    archive = pack("image", tmp_path, "mine.tar.gz")
    assert "no {train,test}/{pos,neg}" in refused("text", "--from", str(archive))


@pytest.mark.parametrize("given", ["folder", "file"])
@pytest.mark.parametrize("packed", [True, False])
def test_key_value_files_are_read_packed_and_unpacked_by_folder_or_file(
    given: str, packed: bool, tmp_path: Path
) -> None:
    folder = bring("kv_retrieval", tmp_path / "kv")
    if not packed:
        for path in folder.iterdir():
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    place = folder if given == "folder" else sorted(folder.iterdir())[0]
    options = [word for setting in (*KEY_VALUES, "task.generalization_pairs=9") for word in ("--set", setting)]
    row = prepare("kv_retrieval", "--from", str(place), *options, "--protocol", "smoke")
    assert sorted(row["provenance"]["files"]) == sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("task", [task for task in READERS if task != "kv_retrieval"])
def test_a_packed_folder_is_told_to_be_unpacked_by_a_command_that_works(task: str, tmp_path: Path) -> None:
    """As lra_release.gz, which is a packed tar archive whatever its name says."""
    folder = tmp_path / "it's here"
    folder.mkdir()
    (folder / "other").mkdir()
    with tarfile.open(folder / "lra_release.gz", "w:gz") as archive:
        archive.add(folder / "other", "lra_release")
    message = refused(task, "--from", str(folder / "lra_release.gz"))
    command = message.partition("; it is packed: unpack it with ")[2].partition(" and name the folder")[0]
    assert command == f"tar -xf {shlex.quote(str(folder / 'lra_release.gz'))}"
    subprocess.run(command, shell=True, cwd=folder, check=True)
    assert (folder / "lra_release").is_dir()


def test_other_packings_and_single_files_are_told_apart(tmp_path: Path) -> None:
    archive, packed, plain = (
        tmp_path / name for name in ("wikitext-2-v1.zip", "basic_train.tsv.gz", "basic_train.tsv")
    )
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("wikitext-2/wiki.train.tokens", " = A = \n")
    assert f"unpack it with unzip {archive} and name the folder" in refused("wikitext", "--from", str(archive))
    packed.write_bytes(gzip.compress(b"Source\tTarget\n"))
    assert f"unpack it with gunzip -k {packed} and name the folder" in refused("listops", "--from", str(packed))
    plain.write_text("Source\tTarget\n")
    assert f"it is a file: name its folder, {tmp_path}" in refused("listops", "--from", str(plain))


@pytest.mark.parametrize("task", READERS)
def test_a_place_that_is_not_there_is_told_as_such(task: str) -> None:
    form = [word for setting in KEY_VALUES for word in ("--set", setting)] if task == "kv_retrieval" else []
    assert "there is no such file or folder" in refused(task, "--set", "task.path=/gone/away", *form)


def test_commands_to_copy_quote_their_paths(tmp_path: Path) -> None:
    args = ["new", "arch", "mine", "--in", str(tmp_path / "it's here")]
    result = CliRunner().invoke(app, args, catch_exceptions=False)
    (line,) = (line for line in result.stdout.splitlines() if "pip install -e" in line)
    assert Path(shlex.split(line)[-1]).is_dir()
