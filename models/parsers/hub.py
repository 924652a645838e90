"""The Hub: which files of a checkpoint are wanted, and a checkpoint at a pinned commit."""

import shutil
from pathlib import Path

FILES = ("config.json", "preprocessor_config.json", "model.safetensors", "model-*.safetensors",
         "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json")
NOT_INSTALLED = "transformers is not installed ({}); run `pip install -r requirements-parsers.txt`"


def download_checkpoint(repository: str, revision: str, folder: Path) -> None:
    """A checkpoint of the Hub at a commit into a folder. ValueError names it and the remedy."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(NOT_INSTALLED.format(error)) from error

    try:
        snapshot_download(repository, revision=revision, allow_patterns=list(FILES), local_dir=folder)
    except Exception as error:  # the Hub's many ways to fail
        raise ValueError(f"{repository}@{revision}: the Hub gives no such checkpoint ({type(error).__name__}: "
                         f"{' '.join(str(error).split())[:160]}); look at its id and commit, be online, and accept its "
                         "terms there where it has any") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # notes of the download, with times in them
    if not (folder / "config.json").is_file():
        raise ValueError(f"{repository}@{revision}: holds no config.json; name a checkpoint of transformers")
    if not any(file.suffix in (".safetensors", ".bin") for file in folder.iterdir()):
        raise ValueError(f"{repository}@{revision}: holds no weights under transformers' names (model.safetensors, "
                         "pytorch_model.bin); name a checkpoint of transformers")
