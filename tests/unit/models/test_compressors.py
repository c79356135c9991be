"""Compressors: shapes, starting points, what each output token sees, and the options that must be refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from teacher_case import teacher_config
from torch import Tensor, nn

from fcot_vl.models import COMPRESSORS, FCoTVLConfig, FCoTVLForConditionalGeneration, build_compressor
from fcot_vl.models.compressors.registry import WINDOWED
from fcot_vl.models.compressors.token_packer import TokenPacker
from fcot_vl.models.compressors.windows import WINDOWS, Windows, first_tokens, window_grid
from fcot_vl.models.flops import compressor_flops, projector_flops
from fcot_vl.train.muon import Muon, is_hidden_matrix

RATIOS = (1, 2, 4, 8, 16)
MEANS = ("conv", "pooling", *WINDOWED)  # start as the mean of what they replace
LEARNED = [name for name in COMPRESSORS if name != "pooling"]


def config(ratio: int, compressor: str = "conv", tile: int = 112) -> FCoTVLConfig:
    """Tiles of 4 x 4 tokens of 128 channels, or of (tile / 28) x (tile / 28)."""
    return FCoTVLConfig.from_teacher(teacher_config(tile=tile), ratio, compressor)


def off_start(compressor: str, ratio: int, tile: int = 112) -> nn.Module:
    """A compressor as if it had been trained: no weight is 0."""
    torch.manual_seed(0)
    module = build_compressor(config(ratio, compressor, tile))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module


def windows_by_hand(x: Tensor, ratio: int, side: int) -> list[Tensor]:
    """The tokens of each window, `[n_tiles, ratio, channels]`, cut out of the grid one by one."""
    high, wide = WINDOWS[ratio]
    grid = x.view(len(x), side, side, -1)
    return [
        grid[:, top : top + high, left : left + wide].reshape(len(x), ratio, -1)
        for top in range(0, side, high)
        for left in range(0, side, wide)
    ]


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_output_has_a_ratio_th_of_the_tokens(ratio: int, compressor: str) -> None:
    out = build_compressor(config(ratio, compressor))(torch.randn(3, 16, 128))
    assert out.shape == (3, 16 // ratio, 128)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_ratio_1_is_the_identity_without_parameters(compressor: str) -> None:
    identity = build_compressor(config(1, compressor))
    x = torch.randn(2, 16, 128)
    assert torch.equal(identity(x), x)
    assert not list(identity.parameters())


@pytest.mark.parametrize("ratio", RATIOS[1:])
def test_conv_starts_as_mean_pooling(ratio: int) -> None:
    x = torch.randn(3, 16, 128)
    conv, pooling = build_compressor(config(ratio, "conv")), build_compressor(config(ratio, "pooling"))
    torch.testing.assert_close(conv(x), pooling(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pooling(x), x.reshape(3, 16 // ratio, ratio, 128).mean(2), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tile", [112, 224])
@pytest.mark.parametrize("ratio", RATIOS[1:])
@pytest.mark.parametrize("compressor", WINDOWED)
def test_windowed_ones_start_as_the_mean_of_the_window(
    compressor: str, ratio: int, tile: int, dtype: torch.dtype
) -> None:
    side = tile // 28
    x = torch.randn(3, side**2, 128).to(dtype)
    means = torch.stack([window.float().mean(1) for window in windows_by_hand(x, ratio, side)], dim=1)
    out = build_compressor(config(ratio, compressor, tile)).to(dtype)(x)
    assert out.dtype == dtype
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(out.float(), means, **close)


@pytest.mark.parametrize("ratio", RATIOS[1:])
def test_windows_are_in_raster_order(ratio: int) -> None:
    x = torch.arange(64.0).view(1, 64, 1)
    expected = torch.stack(windows_by_hand(x, ratio, 8), dim=1)
    assert torch.equal(Windows(64, ratio).split(x), expected)
    assert first_tokens(64, ratio) == expected[0, :, 0, 0].int().tolist()
    assert window_grid(64, ratio) == (8 // WINDOWS[ratio][0], 8 // WINDOWS[ratio][1])


def test_conv2d_at_ratio_2_is_conv() -> None:
    one, other = build_compressor(config(2, "conv2d")), build_compressor(config(2))
    with torch.no_grad():
        other.weight.normal_()
        one.conv.weight.copy_(other.weight.unsqueeze(2))
    x = torch.randn(2, 16, 128)
    torch.testing.assert_close(one(x), other(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("compressor", LEARNED)
@pytest.mark.parametrize("ratio", [2, 4, 8, 16])
def test_every_parameter_learns(compressor: str, ratio: int) -> None:
    """Layers that start at 0 hold the gradient of those before them back for one step, not for longer."""
    torch.manual_seed(0)
    module = build_compressor(config(ratio, compressor))
    x, target = torch.randn(3, 16, 128), torch.randn(3, 16 // ratio, 128)
    for _ in range(2):
        module.zero_grad()
        (module(x) - target).square().mean().backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.sub_(0.1 * parameter.grad)
    still = [
        name
        for name, parameter in module.named_parameters()
        if not parameter.grad.abs().sum() > 0
        and (compressor, name) != ("qformer", "k_proj.bias")  # softmax does not see it
    ]
    assert still == []


@pytest.mark.parametrize("norm", [1.0, 1000.0])
@pytest.mark.parametrize("compressor", LEARNED)
def test_a_few_steps_leave_the_mean_behind(compressor: str, norm: float) -> None:
    """Also beside tokens as long as a ViT's, training has to change what a token says, not a few percent of it."""
    torch.manual_seed(0)
    module = build_compressor(config(4, compressor))
    x = torch.nn.functional.normalize(torch.randn(16, 16, 128), dim=-1) * norm
    first = x[:, [0, 2, 8, 10]] if compressor in WINDOWED else x[:, ::4]  # what a mean of four does not tell
    before = module(x).detach()
    optimizer = torch.optim.AdamW(module.parameters(), 2e-3)
    scale = [128]
    for _ in range(40):
        given, wanted = (torch.nn.functional.layer_norm(tokens, scale) for tokens in (module(x), first))
        optimizer.zero_grad()
        (given - wanted).square().mean().backward()
        optimizer.step()
    after = module(x).detach()
    assert (after - before).norm() > 0.25 * before.norm()


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_the_start_is_decided_by_the_seed(compressor: str) -> None:
    def build(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        module = build_compressor(config(4, compressor)).to_empty(device="cpu")
        for parameter in module.parameters():
            nn.init.constant_(parameter, float("nan"))
        module.reset_parameters()
        return module.state_dict()

    one, same, other = build(0), build(0), build(1)
    assert all(weight.isfinite().all() for weight in one.values()), "a weight that reset_parameters forgot"
    assert all(torch.equal(one[name], same[name]) for name in one)
    random = compressor not in ("conv", "pooling", "conv2d")
    assert random == any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_nothing_but_parameters_is_kept(compressor: str) -> None:
    """No running statistics: they would differ after a resume, and with what a batch holds."""
    module = build_compressor(config(4, compressor))
    assert not list(module.buffers())
    x = torch.randn(2, 16, 128)
    assert torch.equal(module.train()(x), module.eval()(x))


def test_conv_weight_is_exact_and_dense() -> None:
    conv = build_compressor(config(4))
    expected = torch.zeros(128, 128, 4)
    expected[torch.arange(128), torch.arange(128)] = 0.25
    assert torch.equal(conv.weight, expected)
    assert torch.equal(conv.bias, torch.zeros(128))


@pytest.mark.parametrize("compressor", ["conv", "pooling"])
def test_an_output_token_sees_its_own_run_and_no_other(compressor: str) -> None:
    module = build_compressor(config(4, compressor))
    x = torch.randn(1, 16, 128)
    changed = x.clone()
    changed[:, 4:8] += 1.0
    moved = (module(x) - module(changed)).abs().amax(dim=(0, 2)) > 1e-3
    assert moved.tolist() == [False, True, False, False]


@pytest.mark.parametrize("ratio", RATIOS[1:])
@pytest.mark.parametrize(("compressor", "reach"), [("conv2d", 0), ("token_packer", 0), ("ldpv2", 1)])
def test_a_window_sees_itself_and_at_most_its_neighbors(compressor: str, reach: int, ratio: int) -> None:
    module, x = off_start(compressor, ratio, tile=224), torch.randn(1, 64, 128)
    high, wide = WINDOWS[ratio]
    rows, columns = window_grid(64, ratio)
    for token in (0, 27, 63):
        changed = x.clone()
        changed[:, token] += torch.randn(128)
        moved = ((module(x) - module(changed)).abs().amax(dim=(0, 2)) > 1e-4).view(rows, columns)
        row, column = token // 8 // high, token % 8 // wide
        expected = torch.zeros(rows, columns, dtype=torch.bool)
        expected[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1] = True
        assert torch.equal(moved, expected)


def test_token_packer_looks_in_heads_of_the_sources_width() -> None:
    torch.manual_seed(0)
    module, x = TokenPacker(1024, 16, 4), torch.randn(2, 16, 1024)
    nn.init.normal_(module.out_proj.weight, std=0.02)
    assert TokenPacker(4096, 256, 4).n_heads == 8  # of 1024 channels, as in its repository
    normed = module.norm(x)
    found = []
    for window in windows_by_hand(normed, 4, 4):
        q = module.q_proj(window.mean(1, keepdim=True))
        k, v = module.k_proj(window), module.v_proj(window)
        heads = [
            nn.functional.scaled_dot_product_attention(*(part.split(128, dim=-1)[head] for part in (q, k, v)))
            for head in range(2)
        ]
        found.append(torch.cat(heads, dim=-1))
    mean = torch.stack([window.mean(1) for window in windows_by_hand(x, 4, 4)], dim=1)
    scale = mean.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(module(x), mean + scale * module.out_proj(torch.cat(found, dim=1)))


def test_c_abstractor_sees_the_whole_tile() -> None:
    module, x = off_start("c_abstractor", 4, tile=224), torch.randn(1, 64, 128)
    changed = x.clone()
    changed[:, 63] += torch.randn(128)
    assert ((module(x) - module(changed)).abs().amax(dim=(0, 2)) > 0).all()


@pytest.mark.parametrize("compressor", WINDOWED)
def test_tokens_of_a_window_are_told_apart_or_weighed(compressor: str) -> None:
    """Once trained, more than their mean counts: the same mean from other tokens gives another output."""
    module, x = off_start(compressor, 4), torch.randn(1, 16, 128)
    spread = x.clone()
    apart = torch.randn(128)
    spread[:, 0] += apart
    spread[:, 1] -= apart  # of the same window
    assert (module(x) - module(spread)).abs().max() > 1e-3


def test_conv_tells_the_tokens_of_a_run_apart_once_trained() -> None:
    conv, x = build_compressor(config(2)), torch.randn(1, 16, 128)
    with torch.no_grad():
        conv.weight.normal_()
    swapped = x.reshape(1, 8, 2, 128).flip(2).reshape(1, 16, 128)
    assert not torch.allclose(conv(x), conv(swapped), atol=1e-2)


def test_qformer_queries_see_the_whole_tile_and_differ() -> None:
    module = build_compressor(config(4, "qformer"))
    assert module.queries.shape == (4, 128)
    x = torch.randn(1, 16, 128)
    changed = x.clone()
    changed[:, 15] += 1.0 * torch.randn(128)
    assert ((module(x) - module(changed)).abs().amax(dim=(0, 2)) > 0).all()
    assert not torch.allclose(module(x)[0, 0], module(x)[0, 1])


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_tiles_do_not_mix(compressor: str) -> None:
    for ratio in (2, 16):
        module = off_start(compressor, ratio)
        x = torch.randn(3, 16, 128)
        torch.testing.assert_close(module(x)[1:2], module(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ratio", [2, 8])
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_saved_and_loaded_it_compresses_the_same(
    teacher_folder: Path, tmp_path: Path, compressor: str, ratio: int
) -> None:
    student = FCoTVLForConditionalGeneration.from_teacher(
        teacher_folder, ratio, compressor, dtype=torch.float32
    )
    with torch.no_grad():
        for parameter in student.model.multi_modal_projector.compressor.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    student.save_pretrained(tmp_path)
    loaded = FCoTVLForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    x = torch.randn(2, 16, 128)
    with torch.no_grad():
        made = [model.model.multi_modal_projector(x) for model in (student, loaded)]
    assert torch.equal(*made)


@pytest.mark.parametrize("compressor", MEANS)
def test_a_student_from_a_configuration_or_a_teacher_starts_at_the_mean(
    teacher_folder: Path, compressor: str
) -> None:
    x = torch.randn(2, 16, 128)
    starts = [
        FCoTVLForConditionalGeneration(config(2, compressor)),
        FCoTVLForConditionalGeneration.from_teacher(teacher_folder, 2, compressor, dtype=torch.float32),
    ]
    for student in starts:  # at ratio 2 windows are runs
        made = student.model.multi_modal_projector.compressor(x)
        torch.testing.assert_close(made, x.unflatten(1, (-1, 2)).mean(2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_muon_takes_matrices_that_mix_channels(compressor: str) -> None:
    module = off_start(compressor, 4)
    named = [(f"adaptors.4.compressor.{name}", p) for name, p in module.named_parameters()]
    taken = {name.removeprefix("adaptors.4.compressor."): p for name, p in named if is_hidden_matrix(name, p)}
    assert all(p.ndim == 2 or p.shape[1] > 1 for p in taken.values())
    left = {name for name, p in module.named_parameters() if p.ndim > 1} - taken.keys()
    assert all(name == "queries" or "conv" in name or name == "neighbours.weight" for name in left)
    if named:
        module(torch.randn(2, 16, 128)).square().mean().backward()
        Muon(named).step()
        assert all(p.isfinite().all() for _, p in named)


def test_operations_are_counted_by_hand(make_student: Callable[..., FCoTVLForConditionalGeneration]) -> None:
    c, inner, n, m = 128, 32, 16, 4  # channels, of a branch, tokens before and after
    block = 2 * inner * inner + 9 * inner  # a token's; the gate runs once a tile
    gate = 2 * inner * (inner // 4)
    multiply_adds = {
        "pooling": 0,
        "conv": m * 4 * c * c,
        "conv2d": m * 4 * c * c,
        "ldpv2": n * 2 * c * inner + 9 * m * c,
        "token_packer": (m + 2 * n) * c * inner + 2 * n * inner + m * inner * c,
        "c_abstractor": n * c * inner + 3 * (n + m) * block + 6 * gate + m * (inner * inner + inner * c),
        "qformer": (2 * m + 2 * n) * c * c + 2 * m * n * c,
    }
    assert multiply_adds.keys() == COMPRESSORS.keys()
    for compressor, count in multiply_adds.items():
        student = make_student(4, compressor)
        assert compressor_flops(student, 3) == 3 * 2 * count, compressor
        linear = 2 * m * (c * 64 + 64 * 64)
        assert projector_flops(student, 1) == 2 * count + linear


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compress_ratio": 3}, r"compress_ratio must be one of \(1, 2, 4, 8, 16\), got 3"),
        ({"compress_ratio": 2, "compressor": "magic"}, "compressor must be one of .*'conv'.* got 'magic'"),
        ({"compress_ratio": 2, "visual_positions": "odd"}, "visual_positions must be one of .* got 'odd'"),
    ],
)
def test_unknown_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FCoTVLConfig.from_teacher(teacher_config(), **options)


def test_a_ratio_that_does_not_divide_a_tile_is_refused() -> None:
    assert FCoTVLConfig.from_teacher(teacher_config(tile=84), 1).tokens_per_tile == 9
    with pytest.raises(ValueError, match="compress_ratio 2 does not divide the 9 visual tokens of a tile"):
        FCoTVLConfig.from_teacher(teacher_config(tile=84), 2)


def test_a_tile_that_is_no_square_of_windows_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"windows of 2 x 2 tokens .* do not fill a tile of 8 tokens.*conv or pool"
    ):
        window_grid(8, 4)
    with pytest.raises(ValueError, match="windows of 4 x 4 tokens"):
        window_grid(36, 16)
    oblong = teacher_config()
    oblong.vision_config.image_size = (112, 56)
    with pytest.raises(ValueError, match="do not fill a tile of 8 tokens"):
        FCoTVLConfig.from_teacher(oblong, 4, "ldpv2")
    assert FCoTVLConfig.from_teacher(oblong, 4).image_seq_length == 2


def test_the_help_names_every_compressor() -> None:
    from fcot_vl.cli.prepare import inspect
    from fcot_vl.stages.realign import RealignConfig

    texts = [
        RealignConfig.__dataclass_fields__["compressor"].metadata["help"],
        str(inspect.__annotations__["compressor"]),
    ]
    assert all(name in text for text in texts for name in COMPRESSORS)


def test_tokens_per_tile_follow_the_one_dial() -> None:
    assert [config(ratio).image_seq_length for ratio in RATIOS] == [16, 8, 4, 2, 1]
    assert FCoTVLConfig(compress_ratio=4).image_seq_length == 64  # InternVL's own sizes: 256 tokens a tile
    assert FCoTVLConfig(compress_ratio=2, image_seq_length=7).image_seq_length == 128


def test_a_student_is_no_teacher() -> None:
    with pytest.raises(ValueError, match="itself a student with compress_ratio 2"):
        FCoTVLConfig.from_teacher(config(2), 4)
    with pytest.raises(ValueError, match="must be of model_type 'internvl'"):
        FCoTVLConfig.from_teacher(teacher_config().text_config, 2)
