"""ViT and Swin as backbones: against timm's own forward, and each head on them."""

import pytest
import torch

from models.backbone import Backbone, last_stage, parameter_groups
from models.torchvision_import import import_torchvision
from models.transformer_backbone import CameraVectors, Swin, Tokens, Vit, resized
from tests.helpers.networks import network
from tests.helpers.overfit import learn, people

import_torchvision()
timm = pytest.importorskip("timm")

SMALL = {"vit": ("vit_tiny_patch16_224", {"embed_dim": 24, "depth": 4, "num_heads": 2}),
         "swin": ("swin_tiny_patch4_window7_224", {"embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (1, 1, 2, 2)})}
CROP = (64, 32)


def noise(seed: int = 0, height: int = CROP[0], width: int = CROP[1]) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def shaken(module, seed: int = 1):
    """Parameters that do something: timm starts norms and biases as the identity."""
    g = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
    return module.eval()


def small(kind: str, *, size: tuple[int, int] = CROP, **more):
    name, settings = SMALL[kind]
    own = {"img_size": size} if kind == "vit" else {"always_partition": True, "strict_img_size": False}
    return shaken(timm.create_model(name, num_classes=0, drop_path_rate=0.0, **settings, **own, **more))


@pytest.fixture
def small_backbones(monkeypatch):
    """timm's names, built small: what is tested is not how wide they are."""
    real = timm.create_model

    def create(name, **settings):
        narrow = next((more for known, more in SMALL.values() if known == name), {})
        return real(name, **settings, **narrow)

    monkeypatch.setattr(timm, "create_model", create)
    return lambda kind, init="none", **more: Backbone(architecture=SMALL[kind][0], init=init,
                                                      tokens=Tokens(*CROP, **more))


def test_a_vit_s_maps_are_those_of_timm_s_forward_intermediates_with_the_final_norm():
    reference = small("vit")
    with torch.no_grad():
        final, maps = reference.forward_intermediates(noise(), indices=[0, 1, 2, 3], norm=True)
        token, ours = Vit(reference, tokens=Tokens(*CROP))(noise(), None)
    assert torch.allclose(token, final[:, 0], atol=1e-6)
    assert torch.allclose(ours[2], maps[2], atol=1e-6) and torch.allclose(ours[3], maps[3], atol=1e-6)
    assert torch.equal(ours[3], final[:, 1:].mT.unflatten(2, (4, 2)))  # the last map is of the same norm
    for mine, whole, scale in ((ours[0], maps[0], 4), (ours[1], maps[1], 2)):
        assert torch.allclose(mine, torch.nn.functional.interpolate(whole, scale_factor=scale, mode="bilinear"),
                              atol=1e-5)


def test_a_vit_that_timm_pools_by_its_mean_has_its_final_norm():
    """There it stands behind the mean, as `fc_norm`, and `norm` does nothing."""
    reference = shaken(timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=CROP, global_pool="avg",
                                         class_token=False, no_embed_class=True, **SMALL["vit"][1]))
    made = Vit(reference, tokens=Tokens(*CROP))
    with torch.no_grad():
        blocks = reference.forward_intermediates(noise(), indices=[0, 1, 2, 3], norm=False)[1]
        _, ours = made(noise(), None)
    normed = reference.fc_norm(blocks[3].flatten(2).mT).mT.unflatten(2, (4, 2))
    assert isinstance(reference.norm, torch.nn.Identity) and torch.allclose(ours[3], normed, atol=1e-6)
    assert any(parameter is reference.fc_norm.weight for parameter in made.steps()[-1])


def test_a_swin_s_stages_are_timm_s_and_the_last_map_is_brought_to_stride_16():
    """At a size that windows of 7 divide; for others tests/models/test_checkpoints.py has SOLIDER's own numbers."""
    reference, image = small("swin"), noise(height=224, width=224)
    with torch.no_grad():
        final = reference.forward_features(image).permute(0, 3, 1, 2)  # of stride 32, after the norm
        maps = reference.forward_intermediates(image, indices=[0, 1, 2, 3], intermediates_only=True)
        _, ours = Swin(reference, tokens=Tokens(224, 224))(image, None)
    assert all(torch.allclose(mine, theirs, atol=1e-5) for mine, theirs in zip(ours[:3], maps[:3], strict=True))
    assert final.shape[2:] == (7, 7) and ours[3].shape[2:] == (14, 14)
    assert torch.allclose(ours[3], resized(final, 14, 14), atol=1e-5)
    assert torch.allclose(ours[3].mean((2, 3)), final.mean((2, 3)), atol=1e-5)


def test_a_swin_keeps_its_windows_and_bias_tables_on_maps_smaller_than_a_window(small_backbones):
    tables = [value for name, value in small_backbones("swin").state_dict().items() if name.endswith("bias_table")]
    assert len(tables) == 8 and {table.shape[0] for table in tables} == {13 ** 2}
    blocks = small_backbones("swin").trunk.network.layers[3].blocks
    assert [block.shift_size for block in blocks] == [(0, 0), (3, 3)]


@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_maps_have_the_sizes_of_a_resnet_s(kind, small_backbones):
    made = small_backbones(kind).eval()
    with torch.no_grad():
        maps = made(noise())
    assert [tuple(m.shape) for m in maps] == [(2, c, 64 // s, 32 // s)
                                              for c, s in zip(made.channels, (4, 8, 16, 16), strict=True)]


def test_overlapping_patches_are_the_convolution_s_and_positions_are_resized_once(small_backbones):
    torch.manual_seed(0)
    dense = small_backbones("vit", stride=12).eval()
    torch.manual_seed(0)
    plain = small_backbones("vit").eval()
    assert dense.trunk.grid == (5, 2) and plain.trunk.grid == (4, 2)
    ours, published = dense.trunk.network.pos_embed, plain.trunk.network.pos_embed
    assert ours.shape == (1, 11, 24) and published.shape == (1, 9, 24)
    assert torch.equal(ours[:, 0], published[:, 0])  # the class token's stays

    torch.manual_seed(0)
    native = timm.create_model("vit_tiny_patch16_224", num_classes=0).pos_embed.detach()
    by_timm = timm.layers.resample_abs_pos_embed(native, new_size=[5, 2], num_prefix_tokens=1)
    assert torch.allclose(ours, by_timm, atol=1e-6)
    with torch.no_grad():
        assert dense(noise())[-1].shape[2:] == (4, 2)


def test_a_camera_s_vector_times_lambda_is_added_to_all_tokens(small_backbones):
    vectors = CameraVectors((3, 5, 9), channels=2, weight=3.0)
    with torch.no_grad():
        vectors.vectors.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]))
        assert torch.equal(vectors(torch.tensor([9, 3, 5])), torch.tensor([[6.0, 6.0], [3.0, 0.0], [0.0, 3.0]]))

    for kind in ("vit", "swin"):
        made = small_backbones(kind, cameras=(1, 4)).eval()
        with torch.no_grad():
            one, other = made(noise(), torch.tensor([1, 1])), made(noise(), torch.tensor([4, 1]))
            assert not torch.allclose(one[-1][0], other[-1][0]) and torch.equal(one[-1][1], other[-1][1])
            made.trunk.cameras.vectors.zero_()
            torch.manual_seed(0)
            without = small_backbones(kind).eval()
            without.load_state_dict({name: value for name, value in made.state_dict().items() if "cameras" not in name})
            assert torch.allclose(made(noise(), torch.tensor([4, 1]))[-1], without(noise())[-1])
        with pytest.raises(ValueError, match="no cameras were given"):
            made(noise())


@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_every_parameter_is_in_one_step_and_steps_run_from_the_image_on(kind, small_backbones):
    made = small_backbones(kind, cameras=(1, 2))
    steps = made.steps()
    assert len(steps) == 1 + (4 if kind == "vit" else 8)
    flat = [id(parameter) for step in steps for parameter in step]
    assert sorted(flat) == sorted(id(parameter) for parameter in made.parameters())
    names = {id(parameter): name for name, parameter in made.named_parameters()}
    first, last = ({names[id(parameter)].split("network.")[-1] for parameter in step} for step in (steps[0], steps[-1]))
    assert "patch_embed.proj.weight" in first and "norm.weight" in last

    # A stage's merging goes with its first block: as many steps hold one as there are stages after the first.
    merging = [any("downsample" in names[id(parameter)] for parameter in step) for step in steps]
    assert not merging[0] and sum(merging) == (0 if kind == "vit" else 3)


@pytest.mark.parametrize("kind", ["vit", "swin"])
@pytest.mark.parametrize("recipe", ["baseline", "pcb", "sorn", "sgam", "esa", "sgsfa"])
def test_heads_train_and_embed(kind, recipe, small_backbones):
    more = {"sorn": {"channels": 12, "tau": 0.1}, "pcb": {"stripes": 2, "width": 4},
            "sgam": {"width": 8, "crop": False},
            "sgsfa": {"whole_attention": kind == "swin", "size": 8}}.get(recipe, {})
    made = network(recipe, backbone=small_backbones(kind, cameras=(1, 2)), **more)
    g = torch.Generator().manual_seed(0)
    batch = {"image": torch.randn(4, 3, *CROP, generator=g), "pid": torch.tensor([0, 0, 1, 1]),
             "camid": torch.tensor([1, 2, 1, 2]), "labels": torch.randint(8, (4, 16, 8), generator=g),
             "labels16": torch.randint(8, (4, 4, 2), generator=g), "uniform": torch.rand(4, generator=g),
             "probs4": torch.rand(4, 5, 16, 8, generator=g).softmax(1)}
    if hasattr(made, "medians"):
        made.medians.fill_(0.2)
    loss, _ = made(batch)
    loss.backward()
    cameras = made.backbone.trunk.cameras.vectors
    assert loss.isfinite() and cameras.grad is not None and bool((cameras.grad.abs().sum(1) > 0).all())

    features, visibility = made.eval().embed(batch)
    assert features.shape == (4, sum(made.sizes)) and visibility.shape == (4, len(made.sizes))


def test_the_strong_baseline_takes_the_class_token_and_classifies_after_its_neck(small_backbones):
    made = network("baseline", backbone=small_backbones("vit"), pool="token", neck="bn").eval()
    with torch.no_grad():
        made.neck.running_mean.fill_(0.5)
        made.neck.weight.fill_(2.0)
        token = made.backbone.token(noise())
        expected = (token - 0.5) * 2 / (1 + made.neck.eps) ** 0.5
        assert torch.allclose(made.embed({"image": noise()})[0], torch.nn.functional.normalize(expected, dim=1),
                              atol=1e-5)
    made.train()
    loss, _ = made({"image": noise(), "pid": torch.tensor([0, 1])})
    loss.backward()
    assert made.neck.bias.grad is None and made.neck.weight.grad is not None


def test_what_a_backbone_cannot_is_one_sentence(small_backbones):
    refused = [
        (lambda: network("dsa", backbone=small_backbones("vit")), "DSA-reID's head is convolutional"),
        (lambda: network("sgsfa", backbone=small_backbones("vit")), "whole_attention to false"),
        (lambda: network("baseline", backbone=small_backbones("swin"), pool="token"), "no class token"),
        (lambda: small_backbones("vit", stride=20), "stride of 1 to 16"),
        (lambda: small_backbones("swin", stride=2), "do not overlap"),
        (lambda: Backbone(architecture="resnet18", init="none", tokens=Tokens(64, 32, cameras=(1,))),
         "camera: backbone 'resnet18' has no tokens"),
        (lambda: Backbone(architecture="vit_tiny_patch16_224", init="none"), "needs the size of the crop"),
        (lambda: small_backbones("swin").token(noise()), "has no class token")]
    for act, said in refused:
        with pytest.raises(ValueError, match=said) as error:
            act()
        assert "\n" not in str(error.value)


def test_a_start_from_weights_makes_all_of_a_transformer_pretrained(small_backbones):
    made = network("baseline", backbone=small_backbones("vit"))
    assert not parameter_groups(made)[0]
    made.backbone.init = "somewhere.pth"
    assert len(parameter_groups(made)[0]) == len(list(made.backbone.parameters()))


def test_a_convnext_is_cut_as_convolutional_networks_are():
    assert [tuple(m.shape[2:]) for m in Backbone(architecture="convnext_atto", init="none")(noise())] == [
        (16, 8), (8, 4), (4, 2), (4, 2)]
    assert last_stage("convnext_atto") is not None


@pytest.mark.parametrize("recipe", ["baseline", "pcb", "sorn", "sgam", "esa", "sgsfa", "dsa"])
def test_every_head_trains_on_a_convnext(recipe):
    more = {"sorn": {"channels": 12, "tau": 0.1}, "pcb": {"stripes": 2, "width": 4},
            "sgam": {"width": 8, "crop": False}, "sgsfa": {"size": 8}, "dsa": {"dsag_width": 0.0625}}.get(recipe, {})
    made = network(recipe, backbone=Backbone(architecture="convnext_atto", init="none"), **more)
    g = torch.Generator().manual_seed(0)
    batch = {"image": torch.randn(4, 3, *CROP, generator=g), "pid": torch.tensor([0, 0, 1, 1]),
             "labels": torch.randint(8, (4, 16, 8), generator=g), "labels16": torch.randint(8, (4, 4, 2), generator=g),
             "uniform": torch.rand(4, generator=g), "probs4": torch.rand(4, 5, 16, 8, generator=g).softmax(1),
             "dsap": torch.randn(4, 24, 3, 32, 32, generator=g)}
    if hasattr(made, "medians"):
        made.medians.fill_(0.2)
    loss, _ = made(batch)
    loss.backward()
    first = next(made.backbone.parameters()).grad
    assert loss.isfinite() and first is not None and float(first.abs().max()) > 0
    features, _ = made.eval().embed(batch)
    assert features.shape == (4, sum(made.sizes))


@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_a_small_transformer_learns_a_batch_by_heart(kind, small_backbones):
    """Eight people of four images each: the strong baseline ends with each image nearest to its own person's."""
    pool = "token" if kind == "vit" else "mean"
    made, batch = network("baseline", backbone=small_backbones(kind), pool=pool, neck="bn"), people()
    _, last = learn(made, batch, steps=40, lr=3e-3)
    assert last["accuracy"] == 1
    with torch.no_grad():
        features = made.eval().embed(batch)[0]
    near = (features @ features.T).fill_diagonal_(-2).argmax(1)
    assert (batch["pid"][near] == batch["pid"]).float().mean() > 0.9
