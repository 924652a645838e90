"""Checkpoints of others: a file with their names gives what their own code gave, and every tensor is accounted for.

tests/data/checkpoints/NAME.npz holds, of one project's public model code at a small size: `repository` and `commit`;
`weights/...`, the tensors of its state dict, random and exact in float16; `image`; `outputs/...`, what its network
gave in evaluation mode. luperson.npz has names and shapes alone, for a ResNet-50 cannot be small: its tensors are drawn
by `drawn`. They were made by building each project's own class (SOLIDER-REID SwinTransformer; PersonViT and TransReID
TransReID, the latter within build_transformer_local; CLIP and OpenCLIP VisionTransformer, `proj` taken out for the
outputs; fast-reid's ResNet in LUPerson) and nothing of theirs is needed here.
"""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.backbone import Backbone
from models.checkpoints import fitted, take_checkpoint
from models.pretrained import read_state
from models.torchvision_import import import_torchvision
from models.transformer_backbone import Swin, Tokens, Vit, resized

import_torchvision()
timm = pytest.importorskip("timm")

DATA = Path(__file__).resolve().parents[1] / "data/checkpoints"
LIMIT = 1e-4  # of the largest difference
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0}


class Published:
    """One project's file: what it computed, and its checkpoint, written as the project saves it."""

    def __init__(self, name: str) -> None:
        with np.load(DATA / f"{name}.npz") as file:
            self.arrays = {key: file[key] for key in file.files}
        assert len(str(self.arrays["commit"])) == 40 and "/" in str(self.arrays["repository"])

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])

    @property
    def image(self) -> torch.Tensor:
        return self["image"].float()

    @property
    def state(self) -> dict[str, torch.Tensor]:
        found = {key.removeprefix("weights/"): self[key].float() for key in self.arrays if key.startswith("weights/")}
        return found | {key.removeprefix("integers/"): self[key] for key in self.arrays if key.startswith("integers/")}


def saved(path: Path, content: object) -> dict[str, torch.Tensor]:
    torch.save(content, path)
    return read_state(path)


def vit(published: Published, state: dict, *, name: str = "vit_tiny_patch16_224", **more) -> tuple:
    """A small ViT with a file's tensors, and their account."""
    made = Vit(timm.create_model(name, **VIT), tokens=Tokens(*published.image.shape[2:], **more)).eval()
    account = take_checkpoint(made.network, state, architecture=name, source="file", grid=made.grid,
                              published=made.published, positions=made.unplaced)
    return made, account


def swin() -> Swin:
    network = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, embed_dim=3, depths=(2, 1, 1, 1),
                                num_heads=(1, 1, 2, 2), always_partition=True, strict_img_size=False)
    return Swin(network, tokens=Tokens(64, 32)).eval()


def near(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return ours.shape == theirs.shape and float((ours - theirs).abs().max()) < LIMIT


def test_solider_s_swin(tmp_path):
    published, made = Published("solider"), swin()
    arguments = argparse.Namespace(arch="swin_tiny")
    state = saved(tmp_path / "s.pth", {"teacher": published.state, "student": {}, "args": arguments, "epoch": 3})
    account = take_checkpoint(made.network, state, architecture="swin", source="file")
    with torch.no_grad():
        _, maps = made(published.image, None)
    assert near(maps[3], resized(published["outputs/map3"], 4, 2))
    assert near(maps[3].mean((2, 3)), published["outputs/pooled"])
    for number in range(3):  # theirs come after norms that nothing here has
        own = [published.state[f"backbone.norm{number}.{name}"] for name in ("weight", "bias")]
        normed = F.layer_norm(maps[number].permute(0, 2, 3, 1), own[0].shape, *own).permute(0, 3, 1, 2)
        assert near(normed, published[f"outputs/map{number}"])

    assert account.kind == "SOLIDER" and account.taken == account.of and not account.missing
    assert account.left_out == {"beside backbone: head": 1, "SOLIDER's semantic embedding": 16,
                                "SOLIDER's norms of maps that are not the last": 6, "buffers that are computed": 5}
    assert account.taken + sum(account.left_out.values()) == len(published.state)


def test_personvit_and_other_dino_s(tmp_path):
    published = Published("personvit")
    made, account = vit(published, saved(tmp_path / "p.pth", {"teacher": published.state, "epoch": 1}))
    with torch.no_grad():
        token, _ = made(published.image, None)
    assert near(token, published["outputs/token"])
    assert account.taken == account.of and account.left_out == {"beside backbone: head": 1}


def test_transreid_with_its_cameras_and_the_branch_that_is_the_whole_image_s(tmp_path):
    published = Published("transreid")
    state = saved(tmp_path / "t.pth", published.state)
    stride, cameras = int(published.arrays["stride"]), published["cameras"]
    made, account = vit(published, state, stride=stride, cameras=(0, 1, 2))
    with torch.no_grad():
        made.cameras.vectors.copy_(published.state["base.sie_embed"][:, 0])
        token, maps = made(published.image, cameras)
    assert near(token, published["outputs/token"])
    assert near(maps[3], resized(published["outputs/patches"].mT.unflatten(2, (5, 2)), 2, 1))
    assert account.taken == account.of and account.left_out["vectors of another set's cameras"] == 1
    assert account.taken + sum(account.left_out.values()) == len(published.state)


def test_transreid_of_several_gpus_is_the_same_network(tmp_path):
    """A training under DistributedDataParallel puts `module.` before every name, its branches' too."""
    published = Published("transreid")
    stride = int(published.arrays["stride"])
    alone, _ = vit(published, saved(tmp_path / "t.pth", published.state), stride=stride)
    prefixed = {f"module.{name}": value for name, value in published.state.items()}
    together, account = vit(published, saved(tmp_path / "d.pth", prefixed), stride=stride)
    assert all(torch.equal(value, together.network.state_dict()[name])
               for name, value in alone.network.state_dict().items())
    assert account.left_out["TransReID's branch of patches, and the block that its branches were copied from"] > 12


@pytest.mark.parametrize(("name", "architecture"), [("clip", "vit_base_patch16_clip_quickgelu_224"),
                                                    ("openclip", "vit_base_patch16_clip_224")])
def test_clip_s_visual_tower(name, architecture, tmp_path):
    published = Published(name)
    half = {key: value.half() if value.is_floating_point() else value for key, value in published.state.items()}
    made, account = vit(published, saved(tmp_path / "c.pth", half), name=architecture)
    with torch.no_grad():
        token, _ = made(published.image, None)
    assert near(token, published["outputs/token"])
    assert account.kind == "CLIP" and account.taken == account.of
    assert account.left_out["the projection into the space of images and texts"] == 1
    assert account.taken + sum(account.left_out.values()) == len(published.state)


def test_openai_s_clip_is_refused_where_another_activation_would_compute_something_else():
    published = Published("clip")
    with pytest.raises(ValueError, match="QuickGELU, and vit_base_patch16_clip_224 has another"):
        vit(published, published.state, name="vit_base_patch16_clip_224")


def drawn(names: list[str], shapes: list[tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A ResNet's tensors: from a stream of numbers in [-0.5, 0.5), one after the other, scaled so that maps keep their
    size."""
    stream, state = np.random.default_rng(7), {}
    for name, shape in zip(names, shapes, strict=True):
        value = stream.random(shape, dtype=np.float32) - 0.5
        if name.endswith("running_var"):
            value = 1 + value
        elif len(shape) == 1 and name.endswith("weight"):
            value = 0.6 + value
        elif len(shape) > 1:
            value = value * np.float32((12 * 1.5 / np.prod(shape[1:])) ** 0.5)
        state[name] = torch.from_numpy(value)
    return state


@pytest.mark.parametrize("prefix", ["", "module.encoder_q."])
def test_luperson_s_resnet(prefix, tmp_path):
    published = Published("luperson")
    shapes = [tuple(map(int, shape.split(","))) for shape in published.arrays["shapes"].tolist()]
    state = drawn(published.arrays["names"].tolist(), shapes)
    moco = {"queue": torch.zeros(2, 2), "module.encoder_k.conv1.weight": torch.zeros(1),
            "module.encoder_q.fc.0.weight": torch.zeros(1)} if prefix else {}
    torch.save({"state_dict": {prefix + name: value for name, value in state.items()} | moco}, tmp_path / "l.pth")
    made = Backbone(architecture="resnet50", init=str(tmp_path / "l.pth")).eval()
    with torch.no_grad():
        last = made(published.image)[-1][:, ::16]
    assert near(last, published["outputs/map"]) and float(last.abs().mean()) > 0.1
    assert made.account.taken == len(state) and sum(made.account.left_out.values()) == len(moco)


def test_the_authors_own_swin_names_are_known_too():
    made = swin()
    theirs = {}
    for name, value in made.network.state_dict().items():
        stage, found, rest = name.partition(".downsample.")
        theirs[f"layers.{int(stage[7:]) - 1}.downsample.{rest}" if found else name] = value + 1
    taken, account = fitted(theirs | {"head.weight": torch.zeros(2), "layers.0.blocks.1.attn_mask": torch.zeros(1)},
                            made.network.state_dict(), architecture="swin", source="file")
    assert all(torch.equal(taken[name], value + 1) for name, value in made.network.state_dict().items())
    assert account.kind == "Swin" and account.left_out == {"heads": 1, "buffers that are computed": 1}


def test_positions_of_a_square_or_of_a_crop_are_resized_and_others_refused():
    published = Published("personvit")
    base = {name.removeprefix("module.backbone."): value for name, value in published.state.items()
            if name.startswith("module.backbone.")}
    for count, old in ((9, (3, 3)), (32, (8, 4)), (8, None)):
        positions = torch.randn(1, 1 + count, 16, generator=torch.Generator().manual_seed(count))
        made, _ = vit(published, base | {"pos_embed": positions})
        expected = positions if old is None else timm.layers.resample_abs_pos_embed(
            positions, new_size=[4, 2], old_size=list(old), num_prefix_tokens=1)
        assert torch.equal(made.network.pos_embed.data, expected)
    with pytest.raises(ValueError, match="positions of 15 patches, and the crop has 4 x 2"):
        vit(published, base | {"pos_embed": torch.zeros(1, 16, 16)})


def test_the_very_grid_comes_before_a_square_of_as_many_patches_and_the_published_one_before_both():
    """16 patches: 4 x 4 as the network is published, 8 x 2 as a crop of 64 x 16 has them; 9 as 3 x 3 alone."""
    published = Published("personvit")
    base = {name.removeprefix("module.backbone."): value for name, value in published.state.items()
            if name.startswith("module.backbone.")}
    made = Vit(timm.create_model("vit_tiny_patch16_224", **VIT), tokens=Tokens(64, 16)).eval()
    assert made.grid == (8, 2) and made.published == (4, 4)
    positions = torch.randn(1, 17, 16, generator=torch.Generator().manual_seed(0))
    for known, expected in (((4, 4), timm.layers.resample_abs_pos_embed(
            positions, new_size=[8, 2], old_size=[4, 4], num_prefix_tokens=1)), ((14, 14), positions)):
        take_checkpoint(made.network, base | {"pos_embed": positions}, architecture="v", source="file", grid=made.grid,
                        published=known, positions=made.unplaced)
        assert torch.equal(made.network.pos_embed.data, expected)


def test_what_stands_around_the_blocks_may_not_be_missing_nor_hold_no_number():
    published = Published("personvit")
    for name in ("patch_embed.proj.weight", "pos_embed", "cls_token", "norm.weight"):
        state = {key: value for key, value in published.state.items() if not key.endswith(f"backbone.{name}")}
        assert len(state) == len(published.state) - 1
        with pytest.raises(ValueError, match=f"1 of its 30 tensors are missing .first: {name}."):
            vit(published, state)
    broken = {key: value.clone() for key, value in published.state.items()}
    broken["module.backbone.norm.bias"][3] = torch.nan
    with pytest.raises(ValueError, match="file: norm.bias holds 1 values that are no numbers .NaN, infinite.; fetch"):
        vit(published, broken)


@pytest.mark.parametrize(("content", "said"), [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "it is a Git LFS pointer, not the file: git lfs"),
    (b"", "it ends too early"), (b"PK\x03\x04 nothing", "it is damaged, or no file of torch.save's"),
    (torch.nn.Linear(1, 1), "it holds the program object torch.nn.modules.linear.Linear, which is not loaded"),
    ({"model_state_dict": {"a": torch.ones(1)}}, "holds 'model_state_dict' .dict., which is no tensor"),
    ({"model": {"a": torch.ones(1), "step": 3, "epoch": 1}}, "holds 'step' .int. and 1 more that are no tensors"),
    ([1], "holds a list, expected a plain state dict")])
def test_what_is_no_file_of_tensors_is_one_sentence_in_our_words(tmp_path, content, said):
    path = tmp_path / "w.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=f"w.pth: .*{said}") as error:
        read_state(path)
    assert "\n" not in str(error.value) and "weights_only" not in str(error.value) and "\x1b" not in str(error.value)


def test_half_a_network_and_other_architectures_are_one_sentence():
    published, solider = Published("personvit"), Published("solider")
    half = {name: value for name, value in published.state.items() if "blocks.1" not in name}
    one_gone = {name: value for name, value in published.state.items() if "blocks.1.norm1.bias" not in name}
    deeper = published.state | {"module.backbone.blocks.2.norm1.weight": torch.ones(16)}
    wider = published.state | {"module.backbone.norm.weight": torch.ones(32)}
    for act, said in (
            (lambda: vit(published, half), "12 of its 30 tensors are missing .first: blocks.1.norm1.weight"),
            (lambda: vit(published, deeper), "1 are unknown .first: blocks.2.norm1.weight"),
            (lambda: vit(published, wider), r"norm.weight is \(32,\), expected \(16,\)"),
            (lambda: vit(published, solider.state), "unknown .first: patch_embed.norm.weight"),
            (lambda: take_checkpoint(swin().network, published.state, architecture="swin", source="file"),
             "unknown .first: cls_token")):
        with pytest.raises(ValueError, match=f"file: does not fit|does not fit .*{said}") as error:
            act()
        assert "\n" not in str(error.value) and error.match(said)
    assert vit(published, one_gone)[1].missing == ("blocks.1.norm1.bias",)  # 29 of 30: 97 %


def test_a_torchscript_archive_says_how_to_save_its_tensors(tmp_path):
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "clip.pt"))
    with pytest.raises(ValueError, match="TorchScript archive, which is a program; save its tensors"):
        read_state(tmp_path / "clip.pt")
