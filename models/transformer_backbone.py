"""Transformers of timm's as backbones: a ViT's tokens and a Swin's windows as the four maps that networks here take.

B images of H x W pixels, N patches in a grid of h x w, C numbers of a token, K cameras.

Both give maps at H/4, H/8, H/16 and H/16, by one rule: what comes at another size is brought to these by bilinear
resizing, antialiased where it shrinks. So heads see the sizes that they see on a ResNet, and published weights compute
what they computed where they were trained.

ViT (Dosovitskiy et al. 2021): the maps are the patches' tokens after a quarter, half, three quarters and all of the
blocks, each after the final norm, as timm's `forward_intermediates` gives them; the class token takes part, and is
`token`. The grid is the crop's, with patches that overlap where `stride` is less than their side (TransReID 3.1), and
the positional embedding, published for another grid, is resized to it once, before training.

Swin (Liu et al. 2021): the maps are its four stages', the last after the final norm. Windows stay as large as
published, whatever the map's size (`always_partition`), so that their bias tables are as the checkpoint has them; the
last stage keeps its stride of 32, and its map is brought to H/16. A map that windows do not divide is padded before it
is shifted, as in SOLIDER and the authors' detection; timm shifts first, which is the same where nothing is padded.

Camera vectors (TransReID 3.3, its side information embedding): each camera of the training set has a vector, which
times lambda is added to all tokens of its images before the first block.

timm is imported by what builds the networks (models/timm_chain.py), not here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Steps = list[list[nn.Parameter]]


@dataclass(frozen=True)
class Tokens:
    """What a transformer is told beside its name. height, width: H and W; stride: pixels between a ViT's patches, 0 is
    a patch's side; drop_path: rate at which the last block is left out in training, growing linearly from 0 at the
    first; cameras: the training set's, whose images get a vector each, none where empty; camera_weight: lambda."""

    height: int
    width: int
    stride: int = 0
    drop_path: float = 0.0
    cameras: tuple[int, ...] = ()
    camera_weight: float = 3.0

    def given(self) -> str:
        """The settings that a convolutional network has no use for, of those that are set; empty if none is."""
        named = {"stride": self.stride, "drop_path": self.drop_path, "camera": self.cameras}
        return ", ".join(name for name, value in named.items() if value)


class CameraVectors(nn.Module):
    """Lambda times a vector of C numbers for each of K cameras, drawn as TransReID draws them."""

    def __init__(self, cameras: tuple[int, ...], *, channels: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.vectors = nn.Parameter(torch.empty(len(cameras), channels))
        nn.init.trunc_normal_(self.vectors, std=0.02)
        self.known: Tensor
        self.register_buffer("known", torch.tensor(cameras), persistent=False)

    def forward(self, camera: Tensor | None) -> Tensor:
        """Numbers of cameras (B,), of those known -> (B, C). ValueError where there are none."""
        if camera is None:
            raise ValueError("this backbone adds a vector of the image's camera, and no cameras were given")
        place = (camera[:, None] == self.known).int().argmax(1)  # (B,) -> (B, K) -> (B,)
        return self.weight * self.vectors[place]


class Vit(nn.Module):
    """timm's VisionTransformer. ValueError for a crop smaller than a patch, and for a stride beyond a patch, which
    would leave pixels out."""

    staged = False  # nothing can be put between its stages: all maps come at once

    def __init__(self, network: Any, *, tokens: Tokens) -> None:
        super().__init__()
        from timm.layers import resample_abs_pos_embed

        patch = network.patch_embed.patch_size[0]
        stride = tokens.stride or patch
        if stride > patch or min(tokens.height, tokens.width) < patch:
            raise ValueError(f"stride is {stride} and the crop {tokens.height} x {tokens.width}, and a patch has "
                             f"{patch} x {patch} pixels; take a stride of 1 to {patch} and a crop of a patch or more")
        self.network = network
        self.grid = ((tokens.height - patch) // stride + 1, (tokens.width - patch) // stride + 1)
        self.published: tuple[int, int] = tuple(network.patch_embed.grid_size)  # the patches of its own weights
        network.patch_embed.proj.stride = (stride, stride)

        self.unplaced = 0 if network.no_embed_class else network.num_prefix_tokens  # positions that are no patch's
        if network.pos_embed is not None:
            network.pos_embed = nn.Parameter(resample_abs_pos_embed(
                network.pos_embed.detach(), new_size=list(self.grid), old_size=list(self.published),
                num_prefix_tokens=self.unplaced))
        self.cameras = _camera_vectors(tokens, network.embed_dim)

        # timm's ViTs of which it takes the mean have their final norm behind that: named apart, it stays timm's own
        self.final = [network.fc_norm if isinstance(network.norm, nn.Identity) else network.norm]
        depth = len(network.blocks)
        self.taps = [-(-depth * quarter // 4) - 1 for quarter in (1, 2, 3, 4)]  # the blocks whose tokens are maps
        self.channels = (network.embed_dim,) * 4
        self.has_token = bool(network.has_class_token)

    def forward(self, image: Tensor, camera: Tensor | None) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        """image (B, 3, H, W), camera (B,) -> the class token (B, C), None where there is none, and the four maps."""
        network = self.network
        x = network.patch_embed.proj(image).flatten(2).mT  # (B, 3, H, W) -> (B, C, h, w) -> (B, N, C)
        x = network._pos_embed(network.patch_embed.norm(x))  # (B, N, C) -> (B, 1 + N, C), the class token first
        if self.cameras is not None:
            x = x + self.cameras(camera)[:, None]  # (B, 1 + N, C) + (B, 1, C)

        x, tapped = network.norm_pre(x), {}
        for number, block in enumerate(network.blocks):
            x = block(x)  # (B, 1 + N, C)
            if number in self.taps:
                tapped[number] = self.final[0](x)

        size = image.shape[2:]
        maps = [tapped[number][:, network.num_prefix_tokens:].mT.unflatten(2, self.grid)
                for number in self.taps]  # (B, 1 + N, C) -> (B, N, C) -> (B, C, h, w)
        token = tapped[self.taps[-1]][:, 0] if self.has_token else None  # (B, C)
        return token, tuple(resized(x, size[0] // stride, size[1] // stride)
                            for x, stride in zip(maps, (4, 8, 16, 16), strict=True))

    def steps(self) -> Steps:
        """Parameters in the steps by which rates may decay towards the image: embeddings, then block by block."""
        blocks = [list(block.parameters()) for block in self.network.blocks]
        blocks[-1] += list(self.final[0].parameters())
        return [_others(self.parameters(), blocks), *blocks]


class Swin(nn.Module):
    """timm's SwinTransformer, whose stages can be run one by one."""

    staged, has_token = True, False

    def __init__(self, network: Any, *, tokens: Tokens) -> None:
        super().__init__()
        if tokens.stride:
            raise ValueError(f"stride is {tokens.stride}, and the patches of a Swin do not overlap; leave it out")
        self.network = network
        self.cameras = _camera_vectors(tokens, network.embed_dim)
        self.channels = tuple(stage["num_chs"] for stage in network.feature_info)

    def stage(self, number: int, x: Tensor, camera: Tensor | None) -> Tensor:
        """The map of stage 0 .. 3 from that of the one before it, the first from image (B, 3, H, W); camera (B,)."""
        network, (height, width) = self.network, x.shape[2:]
        x = network.patch_embed(x) if number == 0 else x.permute(0, 2, 3, 1)  # -> (B, H/4, W/4, C1), or (B, h, w, C)
        if number == 0 and self.cameras is not None:
            x = x + self.cameras(camera)[:, None, None]  # (B, H/4, W/4, C1) + (B, 1, 1, C1)

        x = network.layers[number].downsample(x)
        for block in network.layers[number].blocks:
            x = windowed(block, x)  # -> (B, H/4, W/4, C1), (B, H/8, W/8, C2), (B, H/16, W/16, C3), (B, _, _, C4)
        if number < 3:
            return x.permute(0, 3, 1, 2)  # -> (B, C, h, w)
        return resized(network.norm(x).permute(0, 3, 1, 2), height, width)  # -> (B, C4, H/16, W/16)

    def forward(self, image: Tensor, camera: Tensor | None) -> tuple[None, tuple[Tensor, ...]]:
        """image (B, 3, H, W), camera (B,) -> no class token, and the four maps."""
        x, maps = image, []
        for number in range(4):
            x = self.stage(number, x, camera)
            maps.append(x)
        return None, tuple(maps)

    def steps(self) -> Steps:
        """As a ViT's; a stage's merging goes with its first block."""
        blocks = []
        for stage in self.network.layers:
            own = [list(block.parameters()) for block in stage.blocks]
            own[0] += list(stage.downsample.parameters())
            blocks += own
        blocks[-1] += list(self.network.norm.parameters())
        return [_others(self.parameters(), blocks), *blocks]


def windowed(block: Any, x: Tensor) -> Tensor:
    """A block of timm's on a map (B, h, w, C), padded by zeros to whole windows before the windows are shifted."""
    height, width = x.shape[1:3]
    rows, columns = block.window_size
    padded = F.pad(block.norm1(x), (0, 0, 0, -width % columns, 0, -height % rows))  # (B, h, w, C) -> (B, h', w', C)
    x = x + block.drop_path1(block._attn(padded)[:, :height, :width])  # -> (B, h, w, C)
    return x + block.drop_path2(block.mlp(block.norm2(x)))


def resized(x: Tensor, height: int, width: int) -> Tensor:
    """A map (B, C, h, w) at height x width, bilinear, in float32 at least; as it is where that is its size."""
    if x.shape[2:] == (height, width):
        return x
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.interpolate(wide, (height, width), mode="bilinear", antialias=True).to(x.dtype)


def _camera_vectors(tokens: Tokens, channels: int) -> CameraVectors | None:
    if not tokens.cameras:
        return None
    return CameraVectors(tokens.cameras, channels=channels, weight=tokens.camera_weight)


def _others(parameters: Iterable[nn.Parameter], steps: Steps) -> list[nn.Parameter]:
    """The parameters that are in none of the steps: what comes before the first block."""
    known = {id(parameter) for step in steps for parameter in step}
    return [parameter for parameter in parameters if id(parameter) not in known]
